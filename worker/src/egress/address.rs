//! Which addresses a name may lead to. A name is resolved here, once, and what is connected to is what was looked at: no
//! name can mean one thing when it is judged and another one when it is used.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long a name or a connection may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Ports of etcd and PostgreSQL: on a private address they are the cluster's, whatever a rule says.
const SERVICES: [u16; 3] = [2379, 2380, 5432];

/// Where clouds keep credentials besides the link-local address: Alibaba and Azure, and Amazon and Google by IPv6.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Addresses that are looked at for one name.
const MOST: usize = 32;

/// Why there is no connection.
pub(super) type Refusal = &'static str;

/// The addresses of a name.
///
/// # Errors
/// `unresolvable`.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = timeout(PATIENCE, lookup_host((host, port))).await;
    let found: Vec<SocketAddr> = found.map_err(|_| "unresolvable")?.map_err(|_| "unresolvable")?.take(MOST).collect();
    if found.is_empty() { Err("unresolvable") } else { Ok(found) }
}

/// Judges the addresses of a name; one that may not be reached spoils all of them. `private` is whether the rule names an
/// address that is not public on purpose, `never` what no rule opens.
///
/// # Errors
/// `private_address`, `forbidden_address`.
pub(super) fn judge(found: &[SocketAddr], private: bool, never: &[SocketAddr]) -> Result<(), Refusal> {
    for address in found {
        let plain = SocketAddr::new(meant(address.ip()), address.port());
        let public = is_public(plain.ip());
        if never.iter().any(|one| SocketAddr::new(meant(one.ip()), one.port()) == plain) || is_nowhere(plain.ip()) {
            return Err("forbidden_address");
        }
        if !public && !private {
            return Err("private_address");
        }
        if !public && SERVICES.contains(&plain.port()) {
            return Err("forbidden_address");
        }
    }
    Ok(())
}

/// Connects to the first address that answers.
///
/// # Errors
/// `unreachable`, and `private_address` where the answer came from this very host.
pub(super) async fn connect(found: &[SocketAddr], private: bool) -> Result<TcpStream, Refusal> {
    for address in found {
        let Ok(Ok(stream)) = timeout(PATIENCE, TcpStream::connect(address)).await else { continue };
        let own = stream.local_addr().is_ok_and(|own| own.ip() == address.ip());
        if own && !private {
            return Err("private_address");
        }
        let _slower = stream.set_nodelay(true);
        return Ok(stream);
    }
    Err("unreachable")
}

/// Every address that this worker itself talks to, as far as it can be found out.
pub(super) async fn resolve_all(places: &[String]) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for place in places {
        let found: io::Result<Vec<SocketAddr>> = match timeout(PATIENCE, lookup_host(place.as_str())).await {
            Ok(found) => found.map(Iterator::collect),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match found {
            Ok(found) => all.extend(found),
            Err(error) => tracing::warn!(place, %error, "a place of the cluster is not known by its address"),
        }
    }
    all
}

/// The address that one stands for: an IPv4 address that is written as an IPv6 one, also for a NAT64.
const fn meant(address: IpAddr) -> IpAddr {
    if let IpAddr::V6(v6) = address
        && let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = v6.segments()
    {
        return IpAddr::V4(Ipv4Addr::from_bits(((high as u32) << 16) | low as u32));
    }
    address.to_canonical()
}

/// What no connection can mean: no address, many, or the one where clouds keep credentials.
fn is_nowhere(address: IpAddr) -> bool {
    let metadata = match address {
        IpAddr::V4(v4) => v4.is_link_local() || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) == 0xfe80 || METADATA_V6.contains(&v6),
    };
    metadata || address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether an address is one of the public network.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            let [first, second, third, ..] = v6.segments();
            let inner = Ipv4Addr::from((u32::from(second) << 16) | u32::from(third));
            match first {
                // Of 6to4 the address inside counts.
                0x2002 => is_public_v4(inner),
                // Teredo, benchmarks, ORCHID, and examples.
                0x2001 => second >= 0x0200 && second != 0x0db8,
                0x3fff => false,
                _ => (0x2000..0x4000).contains(&first),
            }
        }
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let large = matches!((a, b), (0 | 10 | 127 | 224.., _) | (100, 64..=127) | (169, 254) | (172, 16..=31));
    let small = matches!((a, b, c), (192, 168, _) | (198, 18..=19, _) | (192, 0, 0 | 2) | (192, 88, 99));
    let examples = matches!((a, b, c), (198, 51, 100) | (203, 0, 113));
    !large && !small && !examples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Vec<SocketAddr> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn only_public_addresses_are_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "64:ff9b::7f00:1",
            "3fff::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.63.255.255",
            "172.32.0.1",
            "8.8.8.8",
            "2606:4700::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn one_bad_address_spoils_a_name_and_services_are_never_reached() {
        let mixed: Vec<SocketAddr> = [at("1.1.1.1:443"), at("127.0.0.1:443")].concat();
        assert_eq!(judge(&mixed, false, &[]), Err("private_address"));
        assert_eq!(judge(&mixed, true, &[]), Ok(()));
        assert_eq!(judge(&at("1.1.1.1:443"), false, &at("[::ffff:1.1.1.1]:443")), Err("forbidden_address"));
        for place in [
            "168.63.129.16:80",
            "[fd20:ce::254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "127.0.0.1:2379",
            "10.0.0.1:5432",
            "[::1]:2380",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "0.0.0.0:80",
        ] {
            assert_eq!(judge(&at(place), true, &[]), Err("forbidden_address"), "{place}");
        }
        assert_eq!(judge(&at("8.8.8.8:5432"), false, &[]), Ok(()));
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_seen() {
        let found = resolve("localhost", 80).await.unwrap();
        assert_eq!(judge(&found, false, &[]), Err("private_address"));
        assert_eq!(resolve("no-such-host.invalid", 80).await, Err("unresolvable"));
    }
}
