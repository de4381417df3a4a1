//! The way out of a sandbox, from inside: T113 and T114 with a way out, T127, T128 and T131.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

use autopack_shared::runtime::config::Environment;
use autopack_worker::egress::{Egress, Limits, Outcome, Route, Ways};
use autopack_worker::process::output::Output;
use autopack_worker::providers::Providers;

use super::{Jail, ways};
use crate::harness::standin::{Say, Standin};

const KEY: &str = "canary-of-the-key-8c3e1b";

async fn open(jail: &mut Jail, rules: &[&str], route: Option<Route>, limits: Limits) -> Arc<Egress> {
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let ways = Ways { rules, route, limits, ..Ways::default() };
    let egress = Arc::new(Egress::open(&jail.sandbox, ways, Output::default()).await.unwrap());
    jail.egress = Some(egress.clone());
    egress
}

fn route(server: &Standin) -> Route {
    let env = Environment::from([("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &server.url())]);
    let provider = Providers::open(&env, None).unwrap().get("openai").unwrap().clone();
    Route { name: "openai".to_owned(), provider, model: None }
}

/// Says bytes to the way out on the loopback and prints what is answered.
fn ask(bytes: &str) -> String {
    format!(
        "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"127.0.0.1:3128\") or exit 9; print $s {bytes}; \
         print while <$s>'"
    )
}

#[tokio::test]
async fn only_what_is_listed_is_reached() {
    for way in ways() {
        let (canary, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (port, udp_port) = (canary.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let good_port = good.local_addr().unwrap().port();
        let mut jail = Jail::new(way);
        let rules =
            [format!("private:127.0.0.1:{good_port}"), format!("localhost:{port}"), "metadata.example:80".to_owned()];
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let egress = open(&mut jail, &rules, None, Limits::default()).await;
        let answers = std::thread::spawn(move || {
            let (mut stream, _) = good.accept().unwrap();
            let mut heard = [0u8; 4];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(b"pong").unwrap();
        });
        let through = format!("\"CONNECT 127.0.0.1:{good_port} HTTP/1.1\\r\\n\\r\\nping\"");
        assert!(jail.says(&ask(&through)).await.ends_with("pong"));
        answers.join().unwrap();
        for (target, why) in [
            (format!("CONNECT 127.0.0.1:{port}"), "not_listed"),
            (format!("CONNECT localhost:{port}"), "private_address"),
            (format!("CONNECT 127.0.0.1:{good_port}\\@127.0.0.1:{port}"), "bad_target"),
            ("CONNECT 169.254.169.254:80".to_owned(), "not_listed"),
            (format!("GET http://127.0.0.1:{port}/"), "connect_only"),
        ] {
            let said = jail
                .says(&ask(&format!(
                    "\"{target} HTTP/1.1\\r\\nconnection: close\\r\\nhost: 127.0.0.1:{good_port}\\r\\n\\r\\n\""
                )))
                .await;
            assert!(said.starts_with("HTTP/1.1 403") && said.contains(why), "{target}: {said}");
        }
        let crlf = format!("\"CONNECT 127.0.0.1:{good_port}\\r\\nhost:127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n\"");
        assert!(jail.says(&ask(&crlf)).await.starts_with("HTTP/1.1 400"));
        // A way out makes no other one.
        for script in [
            format!("bash -c ': > /dev/tcp/127.0.0.1/{port}'"),
            "bash -c ': > /dev/tcp/169.254.169.254/80'".to_owned(),
            "getent hosts example.com".to_owned(),
        ] {
            jail.refuses(&script).await;
        }
        jail.sh(&format!("bash -c 'echo x > /dev/udp/127.0.0.1/{udp_port}'; bash -c 'echo x > /dev/udp/127.0.0.1/53'"))
            .await;
        udp.set_nonblocking(true).unwrap();
        canary.set_nonblocking(true).unwrap();
        assert!(udp.recv(&mut [0u8; 8]).is_err() && canary.accept().is_err(), "a canary heard somebody");
        let refused: Vec<String> =
            egress.contacts().iter().filter(|one| one.outcome != Outcome::Allowed).map(ToString::to_string).collect();
        assert!(refused.iter().any(|line| line.contains(&format!("127.0.0.1:{port}: not_listed"))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_model_is_asked_with_a_key_that_is_not_inside() {
    for way in ways() {
        let server = Standin::of([Say::text("by the model")]);
        let mut jail = Jail::new(way);
        let egress = open(&mut jail, &[], Some(route(&server)), Limits::default()).await;
        let url = egress.shown().unwrap().url;
        let script = format!(
            "{{ curl -sS -d '{{\"messages\":[]}}' -H 'authorization: Bearer mine' {url}chat/completions; \
             curl -sS -X DELETE {url}models/x; cat /proc/*/environ /proc/*/cmdline; env; cat /run/ap/task/* /etc/*; }} \
             > /ws/said 2>&1"
        );
        jail.sh(&script).await;
        let said = String::from_utf8_lossy(&std::fs::read(jail.path("tree/said")).unwrap()).into_owned();
        let asked = server.asked();
        assert_eq!(asked.len(), 1, "{said}");
        let head = asked[0].headers.to_lowercase();
        assert!(head.contains(&format!("bearer {KEY}")) && !head.contains("mine"), "{head}");
        assert!(said.contains("method_not_allowed") && !said.contains(KEY), "{said}");
        assert_eq!((egress.usage().input_tokens, egress.usage().output_tokens, egress.usage().calls), (100, 20, 1));
    }
}

#[tokio::test]
async fn a_byte_budget_cuts() {
    let server = Standin::by(|_| Say::Endless);
    let mut jail = Jail::new(None);
    let limits = Limits { down: 1 << 20, up: 100_000, ..Limits::default() };
    let egress = open(&mut jail, &[], Some(route(&server)), limits).await;
    let url = egress.shown().unwrap().url;
    let got = jail.sh(&format!("curl -sS -d '{{}}' {url}chat/completions 2>/dev/null | wc -c")).await.tail;
    let got: u64 = got.trim().parse().unwrap();
    assert!((100_000..=1 << 20).contains(&got), "{got}");
    let said =
        jail.sh(&format!("head -c 300000 /dev/zero | curl -sS --data-binary @- {url}chat/completions")).await.tail;
    assert!(!said.contains("\"["), "{said}");
    let cut: u64 = egress
        .contacts()
        .iter()
        .filter(|one| one.outcome == Outcome::Refused("byte_budget"))
        .map(|one| one.times)
        .sum();
    assert!(cut >= 2, "{:?}", egress.contacts());
}

#[tokio::test]
async fn rubbish_and_floods_on_the_socket_leave_it_standing() {
    for way in ways() {
        let mut jail = Jail::new(way);
        let limits = Limits { connections: 8, idle: std::time::Duration::from_secs(1), ..Limits::default() };
        let egress = open(&mut jail, &[], None, limits).await;
        let script = "perl -MSocket -e 'srand 7; for $n (1..400) { socket(my $s, AF_UNIX, SOCK_STREAM, 0); connect($s, \
                      pack_sockaddr_un(\"/run/ap/egress.sock\")) or next; push @all, $s; shift @all if @all > 60; \
                      $b = join \"\", map { chr int rand 256 } 1..int rand 2000; $SIG{PIPE} = \"IGNORE\"; syswrite($s, $b); }'; echo over";
        assert_eq!(jail.says(script).await, "over");
        let said = jail.says(&ask("\"GET / HTTP/1.1\\r\\nconnection: close\\r\\nhost: x\\r\\n\\r\\n\"")).await;
        assert!(said.starts_with("HTTP/1.1 403") && said.contains("not_a_route"), "{said}");
        assert!(egress.contacts().iter().any(|one| one.place == "(malformed)"), "{:?}", egress.contacts());
        // What is there can be used, and not written over.
        jail.refuses("rm /run/ap/egress.sock || mv /run/ap/egress.sock /tmp/x").await;
    }
}
