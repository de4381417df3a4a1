//! The proxy by its socket: what is refused, what is carried, and that no bytes hurt it.

use std::os::unix::net::UnixStream as Plain;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

use autopack_shared::domain::provider::Api;

use super::*;
use crate::providers::Key;

const KEY: &str = "sk-the-real-key-0123456789";

struct Way {
    _folder: tempfile::TempDir,
    egress: Egress,
}

impl Way {
    async fn open(ways: Ways) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let egress = Egress::open_in(folder.path(), ways, Output::default()).await.unwrap();
        Self { _folder: folder, egress }
    }

    async fn to(rules: &[&str]) -> Self {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        Self::open(Ways { rules, ..Ways::default() }).await
    }

    /// Everything that is answered.
    async fn says(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.egress.socket()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _patience = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The reason of a refusal.
    async fn refuses(&self, request: &str) -> String {
        let answer = self.says(format!("{request}\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{request:?}: {answer:?}");
        answer.split("\"reason\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
    }

    fn reasons(&self) -> Vec<(String, Outcome)> {
        self.egress.contacts().into_iter().map(|one| (one.place, one.outcome)).collect()
    }
}

fn route(port: u16, allowance: Allowance) -> Ways {
    let provider = Provider {
        api: Api::Openai,
        url: format!("http://127.0.0.1:{port}/v1/"),
        key: Some(Key::of(KEY)),
        key_name: None,
    };
    Ways { route: Some(Route { name: "p".to_owned(), provider, model: None }), allowance, ..Ways::default() }
}

const ASK: &str = "POST /ap/p/v1/chat/completions HTTP/1.1\r\nhost: evil.example\r\nauthorization: Bearer mine\r\n\
                   content-length: 2\r\nconnection: close\r\n\r\n{}";

/// A server that answers each connection with these bytes, and tells what it was asked.
async fn server(answer: &'static [u8]) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            let mut buffer = [0u8; 4096];
            while !asked.ends_with(b"{}") {
                match stream.read(&mut buffer).await {
                    Ok(n @ 1..) => asked.extend(&buffer[..n]),
                    Ok(_) | Err(_) => break,
                }
            }
            let _closed = tell.send(String::from_utf8_lossy(&asked).into_owned());
            let _gone = stream.write_all(answer).await;
        }
    });
    (port, told, serving)
}

#[tokio::test]
async fn nothing_is_reached_that_no_rule_names() {
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = canary.local_addr().unwrap().port();
    let way =
        Way::to(&["crates.io", &format!("localhost:{port}"), "private:127.0.0.1:9", "private:127.0.0.1:5432"]).await;
    for (request, why) in [
        (format!("CONNECT 127.0.0.1:{port} HTTP/1.1"), "not_listed"),
        (format!("CONNECT LOCALHOST.:{port} HTTP/1.1"), "private_address"),
        (format!("CONNECT crates.io:443@127.0.0.1:{port} HTTP/1.1"), "bad_target"),
        (format!("CONNECT u:p@localhost:{port} HTTP/1.1"), "bad_target"),
        ("CONNECT crates.io:80 HTTP/1.1".to_owned(), "not_listed"),
        (format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nhost: crates.io:443"), "not_listed"),
        (format!("CONNECT 127.1:{port} HTTP/1.1"), "bad_target"),
        ("CONNECT 127.0.0.1:5432 HTTP/1.1".to_owned(), "forbidden_address"),
        ("CONNECT 169.254.169.254:80 HTTP/1.1".to_owned(), "not_listed"),
        (format!("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nhost: crates.io"), "connect_only"),
        (format!("GET / HTTP/1.1\r\nhost: 127.0.0.1:{port}"), "not_a_route"),
        ("POST /ap/openai/v1/chat/completions HTTP/1.1\r\nhost: x".to_owned(), "not_a_route"),
    ] {
        assert_eq!(way.refuses(&request).await, why, "{request}");
    }
    for bytes in
        [&b"CONNECT crates.io:443\r\nx: y HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let answer = way.says(bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    let heard = tokio::time::timeout(Duration::from_millis(50), canary.accept()).await;
    assert!(heard.is_err(), "the canary heard somebody");
    assert!(way.reasons().contains(&("(malformed)".to_owned(), Outcome::Refused("malformed"))));
    assert!(way.reasons().contains(&(format!("127.0.0.1:{port}"), Outcome::Refused("not_listed"))));
}

#[tokio::test]
async fn a_tunnel_carries_both_ways_within_its_budget() {
    let (port, mut asked, _serving) = server(b"pong").await;
    let rule = format!("private:127.0.0.1:{port}");
    let way = Way::to(&[&rule]).await;
    let connect = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nping{{}}");
    let answer = way.says(connect.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\npong"), "{answer:?}");
    assert_eq!(asked.recv().await.unwrap(), "ping{}");
    let contact = way.egress.contacts().into_iter().find(|one| one.place == format!("127.0.0.1:{port}")).unwrap();
    assert_eq!((contact.outcome, contact.times, contact.up, contact.down), (Outcome::Allowed, 1, 6, 4));

    let limits = Limits { down: 3, ..Limits::default() };
    let way = Way::open(Ways { rules: vec![rule.parse().unwrap()], limits, ..Ways::default() }).await;
    let answer = way.says(connect.as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\n"), "nothing of it came: {answer:?}");
    assert!(way.reasons().contains(&(format!("127.0.0.1:{port}"), Outcome::Refused("byte_budget"))));
}

#[tokio::test]
async fn a_question_goes_on_with_the_key_and_without_what_the_agent_brought() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 63\r\n\r\n{\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":20,\"x\":12345}}";
    let (port, mut asked, _serving) = server(answer).await;
    let way = Way::open(route(port, Allowance { calls: Some(1), ..Allowance::default() })).await;
    let heard = way.says(ASK.as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 200 ") && heard.contains("completion_tokens"), "{heard}");
    let asked = asked.recv().await.unwrap().to_lowercase();
    assert!(asked.starts_with("post /v1/chat/completions http/1.1\r\n"), "{asked}");
    assert!(
        asked.contains(&format!("authorization: bearer {KEY}")) && !asked.contains("mine") && !asked.contains("evil"),
        "{asked}"
    );
    let used = way.egress.usage();
    assert_eq!((used.input_tokens, used.output_tokens, used.calls), (100, 20, 1));
    let heard = way.says(ASK.as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 403 ") && heard.contains("budget_exhausted"), "{heard}");
    assert_eq!(way.egress.seen(), Seen::UsedUp(autopack_shared::domain::budget::Unit::Calls));
    assert!(!format!("{:?} {:?}", way.egress, way.egress.shown()).contains(KEY));
}

#[tokio::test]
async fn a_key_that_comes_back_does_not_arrive() {
    let in_body = b"HTTP/1.1 401 No\r\ncontent-length: 42\r\n\r\nwrong key: sk-the-real-key-0123456789 sorry";
    let in_head = b"HTTP/1.1 200 OK\r\nx-echo: Bearer sk-the-real-key-0123456789\r\ncontent-length: 0\r\n\r\n";
    for answer in [&in_body[..], in_head] {
        let (port, _asked, _serving) = server(answer).await;
        let way = Way::open(route(port, Allowance::default())).await;
        let heard = way.says(ASK.as_bytes()).await;
        assert!(!heard.contains("sk-the"), "{heard}");
        assert!(way.reasons().contains(&("model:p".to_owned(), Outcome::Refused("key_echoed"))), "{:?}", way.reasons());
    }
}

#[tokio::test]
async fn a_provider_that_wants_rest_has_it() {
    let answer = b"HTTP/1.1 429 Slow\r\ndate: Wed, 21 Oct 2015 07:27:00 GMT\r\nretry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\ncontent-length: 0\r\n\r\n";
    let (port, mut asked, _serving) = server(answer).await;
    let way = Way::open(route(port, Allowance::default())).await;
    assert!(way.says(ASK.as_bytes()).await.starts_with("HTTP/1.1 429 "));
    asked.recv().await.unwrap();
    let heard = way.says(ASK.as_bytes()).await;
    assert!(
        heard.starts_with("HTTP/1.1 429 ") && heard.contains("retry-after: ") && heard.contains("resting"),
        "{heard}"
    );
    assert!(asked.try_recv().is_err(), "it was not asked again");
    assert!(matches!(way.egress.seen(), Seen::Busy(Some(left)) if left > Duration::from_secs(50)));
}

#[tokio::test]
async fn nobody_there_and_somebody_silent_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let way = Way::open(route(closed, Allowance::default())).await;
    assert!(way.says(ASK.as_bytes()).await.starts_with("HTTP/1.1 502 "));
    assert_eq!(way.egress.seen(), Seen::Away);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut ways = route(silent.local_addr().unwrap().port(), Allowance::default());
    ways.limits.idle = Duration::from_millis(200);
    let way = Way::open(ways).await;
    assert!(way.says(ASK.as_bytes()).await.starts_with("HTTP/1.1 504 "));
}

#[tokio::test]
async fn who_says_nothing_or_too_much_is_let_go() {
    let limits = Limits { idle: Duration::from_millis(200), total: Duration::from_secs(2), ..Limits::default() };
    let way = Way::open(Ways { limits, ..Ways::default() }).await;
    assert_eq!(way.says(b"GET / HT").await, "");
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let mut stream = UnixStream::connect(way.egress.socket()).await.unwrap();
    let _cut = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _cut = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert!(way.says(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_flood_of_connections_waits_and_hurts_nobody() {
    let limits = Limits { connections: 4, idle: Duration::from_millis(300), ..Limits::default() };
    let way = Way::open(Ways { limits, ..Ways::default() }).await;
    let held: Vec<PathBuf> = vec![way.egress.socket(); 100];
    let held: Vec<_> = held
        .iter()
        .filter_map(|path| {
            let stream = Plain::connect(path).ok()?;
            stream.set_nonblocking(true).ok()?;
            Some(stream)
        })
        .collect();
    assert!(held.len() >= 50, "{}", held.len());
    drop(held);
    assert_eq!(way.refuses("GET / HTTP/1.1\r\nhost: x").await, "not_a_route");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_hurt_it(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "(CONNECT|GET|POST|\\*|PRI) [ -~]{0,40} HTTP/1\\.[01]\r\n".prop_map(String::into_bytes),
                "[a-z-]{1,12}: [ -~]{0,30}\r\n".prop_map(String::into_bytes),
                "(content-length|transfer-encoding|expect|upgrade): (0|-1|999999999999999999999|chunked|identity, chunked|100-continue)\r\n".prop_map(String::into_bytes),
                Just(b"\r\n\r\n".to_vec()),
                Just(b"POST /ap/p/v1/chat/completions HTTP/1.1\r\n".to_vec()),
            ],
            0..12,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ways = route(9, Allowance::default());
            ways.limits.idle = Duration::from_millis(50);
            let way = Way::open(ways).await;
            let mut stream = UnixStream::connect(way.egress.socket()).await.unwrap();
            let _cut = stream.write_all(&pieces.concat()).await;
            let _cut = stream.shutdown().await;
            let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut Vec::new())).await;
            prop_assert!(ended.is_ok(), "it hangs");
            prop_assert_eq!(way.refuses("GET / HTTP/1.1\r\nhost: x").await, "not_a_route");
            Ok(())
        })?;
    }
}
