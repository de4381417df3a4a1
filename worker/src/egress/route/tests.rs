//! What goes on to a provider, and what does not.

use super::*;

fn route(api: Api, url: &str) -> Route {
    let provider = Provider { api, url: url.to_owned(), key: Some(Key::of("sk-real")), key_name: None };
    Route { name: "p".to_owned(), provider, model: None }
}

fn judged(route: &Route, method: &Method, target: &str) -> Result<String, &'static str> {
    route.judge(method, &target.parse().unwrap()).map(|onward| onward.url)
}

#[test]
fn each_api_has_its_few_paths() {
    let openai = route(Api::Openai, "https://api.example.com/v1/");
    let ask = |method, target: &str| judged(&openai, &method, target);
    assert_eq!(ask(Method::POST, "/ap/p/v1/chat/completions").unwrap(), "https://api.example.com/v1/chat/completions");
    assert_eq!(
        ask(Method::POST, "/ap/p/v1/responses?stream=1").unwrap(),
        "https://api.example.com/v1/responses?stream=1"
    );
    assert_eq!(ask(Method::GET, "/ap/p/v1/models/gpt-4").unwrap(), "https://api.example.com/v1/models/gpt-4");
    for (method, target, why) in [
        (Method::GET, "/ap/p/v1/chat/completions", "method_not_allowed"),
        (Method::DELETE, "/ap/p/v1/models/x", "method_not_allowed"),
        (Method::POST, "/ap/p/v1/files", "path_not_allowed"),
        (Method::POST, "/ap/p/v1/organization/admin_api_keys", "path_not_allowed"),
        (Method::POST, "/ap/p/v2/chat/completions", "path_not_allowed"),
        (Method::POST, "/ap/p/v1/../v1/chat/completions", "bad_target"),
        (Method::POST, "/ap/p/v1/chat/%2e%2e/files", "bad_target"),
        (Method::POST, "/ap/p/v1//chat/completions", "bad_target"),
        (Method::POST, "/ap/p@evil.example/v1/chat/completions", "bad_target"),
        (Method::POST, "/ap/px/v1/chat/completions", "bad_target"),
        (Method::POST, "/ap/other/v1/chat/completions", "not_a_route"),
        (Method::POST, "/v1/chat/completions", "not_a_route"),
        (Method::GET, "/", "not_a_route"),
    ] {
        assert_eq!(ask(method, target), Err(why), "{target}");
    }
    let gemini = route(Api::Gemini, "https://g.example/v1beta/");
    let target = "/ap/p/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse&key=mine";
    let url = "https://g.example/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse";
    assert_eq!(judged(&gemini, &Method::POST, target).unwrap(), url);
    assert!(judged(&gemini, &Method::POST, "/ap/p/v1beta/models/x:deleteAll").is_err());
    let anthropic = route(Api::Anthropic, "http://127.0.0.1:9/v1/");
    assert_eq!(
        judged(&anthropic, &Method::POST, "/ap/p/v1/messages?beta=true").unwrap(),
        "http://127.0.0.1:9/v1/messages?beta=true"
    );
    let ollama = route(Api::Ollama, "http://127.0.0.1:11434/");
    assert_eq!(judged(&ollama, &Method::POST, "/ap/p/api/chat").unwrap(), "http://127.0.0.1:11434/api/chat");
}

#[test]
fn what_costs_is_known() {
    let costs = |api, path: &str| asks(api, path).unwrap();
    assert_eq!(costs(Api::Openai, "chat/completions"), Some(true));
    assert_eq!(costs(Api::Anthropic, "messages/count_tokens"), Some(false));
    assert_eq!(costs(Api::Openai, "models"), None);
}

#[test]
fn the_agents_credentials_are_left_out_and_the_real_one_is_put_in() {
    let mut came = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer mine"),
        ("x-api-key", "mine"),
        ("x-goog-api-key", "mine"),
        ("api-key", "mine"),
        ("cookie", "mine"),
        ("proxy-authorization", "mine"),
        ("host", "evil.example"),
        ("content-length", "7"),
        ("transfer-encoding", "chunked"),
        ("accept-encoding", "br"),
        ("connection", "keep-alive, x-named"),
        ("x-named", "mine"),
        ("anthropic-version", "2023-06-01"),
    ] {
        came.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    for (api, name, value) in [
        (Api::Openai, "authorization", "Bearer sk-real"),
        (Api::Anthropic, "x-api-key", "sk-real"),
        (Api::Gemini, "x-goog-api-key", "sk-real"),
    ] {
        let head = route(api, "http://h/v1/").head(&came).unwrap();
        let mut left: Vec<(&str, &str)> =
            head.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        let mut wanted = vec![("anthropic-version", "2023-06-01"), (name, value)];
        wanted.sort_unstable();
        assert_eq!(left, wanted);
        assert!(!format!("{head:?}").contains("sk-real"));
    }
}

#[test]
fn inside_there_is_no_key_and_another_address() {
    let shown = route(Api::Anthropic, "https://api.anthropic.com/v1/").shown();
    assert_eq!(shown.url, "http://127.0.0.1:3128/ap/p/v1/");
    assert_ne!(shown.key.unwrap().reveal(), "sk-real");
    assert_eq!(route(Api::Ollama, "http://h/").shown().url, "http://127.0.0.1:3128/ap/p/");
}
