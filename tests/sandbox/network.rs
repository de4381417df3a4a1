//! The network: T113 to T116, T120, T133, and T131 at the door to the run's data.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use autopack_worker::process::{self, Cage, ProcEnd};
use autopack_worker::sandbox::DatabaseDoor;

use super::{Jail, ways};

/// A program that connects a stream to a path, or an abstract name that begins with `@`.
const UNIX: &str = r#"perl -MSocket -e 'my $p = $ARGV[0]; $p =~ s/^@/\0/; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die;
connect($s, pack_sockaddr_un($p)) or exit 7; print "connected"'"#;

#[tokio::test]
async fn no_listener_of_the_host_is_reached() {
    for way in ways() {
        let jail = Jail::new(way);
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = UnixListener::bind(folder.path().join("s")).unwrap();
        std::fs::set_permissions(folder.path().join("s"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let name = format!("canary-{}", folder.path().display());
        let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        for script in [
            format!("bash -c ': > /dev/tcp/127.0.0.1/{tcp_port}'"),
            "bash -c ': > /dev/tcp/169.254.169.254/80'".to_owned(),
            "bash -c ': > /dev/tcp/1.1.1.1/53'".to_owned(),
            "perl -MSocket -e 'socket(my $s, 16, SOCK_RAW, 0) or exit 7'".to_owned(),
            "perl -MSocket -e 'socket(my $s, 40, SOCK_STREAM, 0) or exit 7'".to_owned(),
            "perl -MSocket -e 'socket(my $s, 17, SOCK_RAW, 0) or exit 7'".to_owned(),
            format!("{UNIX} {}", folder.path().join("s").display()),
            format!("{UNIX} @{name}"),
            "getent hosts example.com".to_owned(),
        ] {
            jail.refuses(&script).await;
        }
        jail.sh(&format!("bash -c 'echo x > /dev/udp/127.0.0.1/{udp_port}'")).await;
        udp.set_nonblocking(true).unwrap();
        assert!(udp.recv(&mut [0u8; 8]).is_err(), "a datagram arrived");
        for accepted in [
            tcp.set_nonblocking(true).and_then(|()| tcp.accept().map(drop)),
            path.set_nonblocking(true).and_then(|()| path.accept().map(drop)),
            hidden.set_nonblocking(true).and_then(|()| hidden.accept().map(drop)),
        ] {
            assert!(accepted.is_err(), "a connection arrived");
        }
    }
}

#[tokio::test]
async fn a_listener_left_behind_meets_nobody() {
    for way in ways() {
        let jail = Jail::new(way);
        let listen = "perl -MSocket -e 'socket(my $s, AF_INET, SOCK_STREAM, 0); bind($s, pack_sockaddr_in(4711, INADDR_LOOPBACK)) or die; listen($s, 5); sleep 600'";
        // The loopback inside works for the tests of a project, and is gone with it.
        let script = format!("({listen} &) ; sleep 0.5; bash -c ': > /dev/tcp/127.0.0.1/4711' && echo met");
        assert_eq!(jail.says(&script).await, "met");
        jail.refuses("bash -c ': > /dev/tcp/127.0.0.1/4711'").await;
    }
}

#[tokio::test]
async fn the_door_to_the_runs_data_leads_to_one_server_and_bears_malformed_bytes() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let echo = std::thread::spawn(move || {
        for mut client in server.incoming().flatten() {
            let mut bytes = [0u8; 4];
            if client.read_exact(&mut bytes).is_ok() && &bytes == b"ping" {
                let _gone = client.write_all(b"pong");
            }
        }
    });
    for way in ways() {
        let mut jail = Jail::new(way);
        let door = DatabaseDoor::open(&jail.sandbox, &format!("postgres://u:p@127.0.0.1:{port}/runs?sslmode=disable"))
            .unwrap();
        jail.env = vec![("DATABASE_URL".to_owned(), door.url().to_owned())];
        let ask = |bytes: &str| {
            format!(
                "perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_STREAM, 0); connect($s, \
                 pack_sockaddr_un(\"/run/ap/pg/.s.PGSQL.5432\")) or exit 7; syswrite($s, {bytes}); shutdown($s, 1); \
                 sysread($s, my $b, 9); print $b'"
            )
        };
        let script =
            format!("{}; {}; {}; echo; echo $DATABASE_URL", ask("\"\\0\" x 100000"), ask("\"\""), ask("\"ping\""));
        let mut spec = jail.spec(&["/bin/sh", "-c", &script]);
        let Cage::Sandboxed(_, place) = &mut spec.cage else { panic!("it is confined") };
        place.door = Some(Arc::new(door));
        let report = process::run(&spec, &CancellationToken::new()).await.unwrap();
        assert_eq!(report.end, ProcEnd::Exit(0), "{report:?}");
        assert_eq!(report.tail, "pong\npostgres://u:p@%2Frun%2Fap%2Fpg/runs\n");
    }
    drop(echo);
}
