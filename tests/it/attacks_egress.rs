//! Attacks on what goes out to an API, by base URL and inside a tunnel whose TLS ends here: the API sees one credential, ours,
//! and nothing that was not judged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sidekey::base::random::{self, SeededRandom};
use tokio::net::{TcpListener, TcpStream};

use crate::attacks_support::{Attacked, HOST, PATIENCE, WAYS, Way, values};

/// D-01: what a caller nominates in `Connection` never takes the token along.
#[tokio::test]
async fn connection_takes_no_injected_header_out() {
    let attacked = Attacked::with(HOST, "[api.headers.always]\nx-our-identity = \"sidekey\"\n").await;
    for way in WAYS {
        for nominated in [
            "connection: Authorization",
            "connection: close, authorization",
            "connection: , authorization",
            "connection: keep-alive\r\nconnection: AuthorizatioN",
            "CONNECTION: aUTHORIZATION",
            "connection: x-our-identity",
            "connection: host",
            "connection: \"authorization\"",
            "connection: authorization\tx",
        ] {
            let answer = attacked.get(way, "/a", &format!("{nominated}\r\nx-our-identity: me\r\n")).await;
            let requests = attacked.api.take();
            if answer.status == 200 {
                let [request] = requests.as_slice() else { panic!("{way:?} {nominated:?}: {requests:?}") };
                let [credential] = values(request, "authorization").try_into().expect("exactly one");
                assert!(attacked.tokens().iter().any(|token| credential == format!("Bearer {token}")), "{nominated:?}");
                assert_eq!(values(request, "x-our-identity"), ["sidekey"], "{way:?} {nominated:?}");
                assert_eq!(values(request, "connection"), Vec::<String>::new(), "{way:?} {nominated:?}");
                assert_eq!(values(request, "host"), [HOST], "{way:?} {nominated:?}");
            } else {
                assert_eq!(answer.status, 400, "{way:?} {nominated:?}: {}", answer.text());
                assert!(requests.is_empty(), "{way:?} {nominated:?}: {requests:?}");
            }
        }
    }
    attacked.world.stop().await;
}

/// D-03, F-20: credentials of the caller's own do not leave, in whatever carrier.
#[tokio::test]
async fn no_credential_of_the_callers_own_leaves() {
    let attacked = Attacked::with(HOST, "").await;
    let with_handle = format!("proxy-authorization: Basic {}", STANDARD.encode(format!("{}:", attacked.handle)));
    for way in WAYS {
        for line in [
            "proxy-authorization: Basic b3duOm93bi1zZWNyZXQ=",
            with_handle.as_str(),
            "cookie: session=own-secret",
            "cookie: a=own-secret\r\ncookie: b=own-secret",
            "x-api-key: own-secret",
            "X-API-KEY: own-secret\r\nx-api-key: own-secret",
            "private-token: own-secret",
            "x-upstream-authorization: Bearer own-secret",
            "x-sidekey-token: own-secret",
            "x-sidekey-subject: own-secret",
        ] {
            let answer = attacked.get(way, "/a", &format!("{line}\r\n")).await;
            assert_eq!(answer.status, 200, "{way:?} {line}: {}", answer.text());
            let [request] = attacked.api.take().try_into().expect("exactly one");
            let [credential] = values(&request, "authorization").try_into().expect("exactly one");
            assert!(attacked.tokens().iter().any(|token| credential == format!("Bearer {token}")), "{line}");
            for own in ["own-secret", "b3duOm93bi1zZWNyZXQ=", attacked.handle.as_str(), "proxy-authorization"] {
                assert!(!request.to_ascii_lowercase().contains(&own.to_ascii_lowercase()), "{way:?} {line}: {request}");
            }
        }
        // Two of a kind: nobody guesses which one counts.
        for line in ["authorization: Bearer own-secret", "Authorization: Basic b3duOm93bi1zZWNyZXQ="] {
            let answer = attacked.get(way, "/a", &format!("{line}\r\n")).await;
            assert_eq!((answer.status, &answer.json()["type"]), (400, &"urn:sidekey:error:two-credentials".into()));
        }
        for query in ["access_token=own-secret", "a=b&ACCESS%5FTOKEN=own-secret", "a;access_token=own-secret"] {
            let answer = attacked.get(way, &format!("/a?{query}"), "").await;
            assert_eq!((answer.status, &answer.json()["type"]), (400, &"urn:sidekey:error:token-in-query".into()));
        }
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// D-03: whoever asked for a tunnel with a handle may send any token inside; it is replaced.
#[tokio::test]
async fn a_placeholder_inside_a_tunnel_is_replaced() {
    use tokio::io::AsyncWriteExt;
    let attacked = Attacked::with(HOST, "").await;
    let credential = format!("proxy-authorization: Basic {}\r\n", STANDARD.encode(format!("{}:", attacked.handle)));
    for line in ["", "authorization: Bearer own-secret\r\n", "authorization: Basic b3duOm93bi1zZWNyZXQ=\r\n"] {
        let mut stream = attacked.tunnel(&credential, &["http/1.1"]).await;
        let request = format!("GET /a HTTP/1.1\r\nhost: {HOST}\r\n{line}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        assert_eq!(crate::client::read_answer(&mut stream).await.status, 200, "{line}");
        let [request] = attacked.api.take().try_into().expect("exactly one");
        let [credential] = values(&request, "authorization").try_into().expect("exactly one");
        assert!(attacked.tokens().iter().any(|token| credential == format!("Bearer {token}")), "{request}");
    }
    attacked.world.stop().await;
}

/// D-04, D-05: names that pass for protected ones, and names that are none.
#[tokio::test]
async fn odd_header_names_are_refused() {
    let attacked = Attacked::start().await;
    for way in WAYS {
        for name in [
            "x_forwarded_for",
            "X-Forwarded_For",
            "X-Sidekey_Subject",
            "x_sidekey_token",
            "x_upstream_authorization",
            "proxy_authorization",
            "Authorization\x0b",
            "authorization ",
            "x-api_key",
            "x y",
            "x\0y",
            "",
        ] {
            let answer = attacked.get(way, "/a", &format!("{name}: own-secret\r\n")).await;
            assert_eq!(answer.status, 400, "{way:?} {name:?}: {}", answer.text());
        }
        let in_name = format!("y-{}: v\r\n", attacked.handle);
        let answer = attacked.get(way, "/a", &in_name).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(answer.json()["type"], "urn:sidekey:error:handle-would-leave");
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// D-06 to D-10: targets that a server could read differently.
#[tokio::test]
async fn odd_targets_are_refused_whichever_way_they_come() {
    let attacked = Attacked::start().await;
    for way in WAYS {
        for path in [
            "/v1/../admin",
            "/v1/%2e%2e/admin",
            "/v1/.%2e/",
            "/v1/..%2f",
            "/v1/%252e%252e%252f",
            "/v1/..;/",
            "/v1/..\\",
            "/v1/%5c..",
            "/v1/%c0%ae",
            "/v1/%u002e",
            "/v1/a%00",
            "/v1/.",
            "/v1/..",
            "//admin",
            "/v1//..//admin",
            "/v1%2f..%2fadmin",
            "/v1%2fadmin",
            "/v1/ok#/../admin",
            "/v1/ok?x#y",
            "/v1/\u{e4}",
        ] {
            let answer = attacked.get(way, path, "").await;
            assert_eq!(answer.status, 400, "{way:?} {path}: {}", answer.text());
        }
        for target in [
            "@evil/v1".to_owned(),
            "evil:80/v1".to_owned(),
            "v1/a".to_owned(),
            "\\v1\\a".to_owned(),
            ";/v1".to_owned(),
            "?x=/v1".to_owned(),
            "*".to_owned(),
            format!("http://{}/v1/../admin", attacked.host(way)),
            format!("https://evil@{}/v1", attacked.host(way)),
            "https://evil.example/v1".to_owned(),
            "ftp://evil.example/v1".to_owned(),
        ] {
            let head = attacked.head(way, "GET", "").replacen(
                &format!("GET {} ", attacked.target(way, "")),
                &format!("GET {target} "),
                1,
            );
            let answer = attacked.raw(way, format!("{head}\r\n").as_bytes()).await;
            assert_eq!(answer.status, 400, "{way:?} {target}: {}", answer.text());
        }
    }
    // Inside a tunnel the host is known already.
    for target in [format!("https://{HOST}/a"), format!("http://{HOST}/a"), format!("HTTPS://{HOST}:443/a")] {
        let head = attacked.head(Way::Tunnel, "GET", "/a").replacen("/a", &target, 1);
        let answer = attacked.raw(Way::Tunnel, format!("{head}\r\n").as_bytes()).await;
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// D-06: whatever target is sent, what arrives is that target byte for byte, and no server finds in it what policy denies,
/// however sloppily it reads.
#[tokio::test]
async fn what_arrives_is_what_was_judged() {
    let tables = "[providers.raw.policy]\nallow = [{ paths = [\"/v1/\"] }]\ndeny = [{ paths = [\"/v1/admin\"] }]\n";
    let attacked = Attacked::with_tables(HOST, "encoded_slash_paths = [\"/v1/\"]\n", tables).await;
    let random = SeededRandom::new(20_261_121);
    let pick = |pieces: &[&'static str]| pieces[usize::from(u16::from_le_bytes(random::bytes(&random))) % pieces.len()];
    let pieces = [
        "/",
        "/",
        "/",
        "v1",
        "v1",
        "v1/",
        "admin",
        "ADMIN",
        "%61dmin",
        "a",
        "..",
        ".",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "\\",
        ";",
        "%3b",
        "?",
        "%3f",
        "#",
        "%23",
        "%00",
        "%25",
        "%252e",
        "%252f",
        "+",
        "~",
        "@",
        ":",
        "x=/v1/admin",
        "%c0%af",
        "\t",
        "%09",
    ];
    let mut arrived = 0;
    for way in WAYS {
        let mut caller = attacked.caller(way).await;
        for _ in 0..150 {
            let mut path = "/v1/".to_owned();
            (0..1 + random::bytes::<1>(&random)[0] % 6).for_each(|_| path.push_str(pick(&pieces)));
            caller.write(format!("{}\r\n", attacked.head(way, "GET", &path)).as_bytes()).await;
            let answer = caller.read_answer().await;
            let requests = attacked.api.take();
            if answer.header("connection") == "close" || answer.status == 400 {
                caller = attacked.caller(way).await;
            }
            if requests.is_empty() {
                assert!(matches!(answer.status, 400 | 403 | 405), "{path:?}: {} {}", answer.status, answer.text());
                continue;
            }
            arrived += 1;
            let written = requests[0].lines().next().expect("a line");
            // A tab cannot stand in a request line; Pingora encodes it before anybody looks.
            let judged = path.replace('\t', "%09");
            assert_eq!((requests.len(), written), (1, format!("GET {judged} HTTP/1.1").as_str()));
            let read = sloppily(&judged);
            let segments: Vec<&str> = read.split('/').skip(1).take(2).collect();
            assert!(segments[0] == "v1" && segments.get(1) != Some(&"admin"), "{path:?} is {read}");
        }
    }
    assert!(arrived > 40, "{arrived}");
    attacked.world.stop().await;
}

/// A path as the most careless server reads it: decoded as often as it can be, without parameters, resolved, in lower case.
fn sloppily(target: &str) -> String {
    let mut path = target.split('?').next().unwrap_or_default().to_owned();
    for _ in 0..3 {
        path = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
    }
    let path = path.replace('\\', "/").to_ascii_lowercase();
    let mut segments = Vec::new();
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default().trim()) {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

/// D-09: only the path is matched.
#[tokio::test]
async fn a_query_permits_nothing() {
    let tables = "[providers.raw.policy]\nallow = [{ paths = [\"/v1/\"] }]\n";
    let attacked = Attacked::with_tables(HOST, "", tables).await;
    for way in WAYS {
        for path in ["/admin?x=/v1/ok", "/admin?/../v1/ok", "/admin;/v1/ok", "/v2/v1/ok"] {
            assert_eq!(attacked.get(way, path, "").await.status, 403, "{way:?} {path}");
        }
        assert_eq!(attacked.get(way, "/v1/a?/../admin", "").await.status, 200, "what is in a query is no path");
        assert_eq!(attacked.api.take().len(), 1);
    }
    attacked.world.stop().await;
}

/// D-11: `Host` decides nothing about where a call goes.
#[tokio::test]
async fn odd_hosts_are_refused() {
    let attacked = Attacked::start().await;
    for way in WAYS {
        let host = attacked.host(way);
        for (lines, statuses) in [
            ("host: evil.example\r\n".to_owned(), [403, 421]),
            (format!("host: {host}.evil.example\r\n"), [403, 421]),
            (format!("host: {host}\r\nhost: {host}\r\n"), [400, 400]),
            (format!("host: {host}\r\nhost: evil.example\r\n"), [400, 400]),
            (format!("host: evil@{host}\r\n"), [400, 400]),
            (format!("host: {host}/x\r\n"), [400, 400]),
            (format!("host: {host}, evil.example\r\n"), [400, 400]),
            ("host: [::1\r\n".to_owned(), [400, 400]),
            ("host:\r\n".to_owned(), [400, 400]),
            (String::new(), [400, 400]),
        ] {
            let head = attacked.head(way, "GET", "/a").replacen(&format!("host: {host}\r\n"), &lines, 1);
            let answer = attacked.raw(way, format!("{head}\r\n").as_bytes()).await;
            assert!(statuses.contains(&answer.status), "{way:?} {lines:?}: {} {}", answer.status, answer.text());
        }
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// D-10, D-11: in absolute form, too, a request has one `Host`, and it says the same.
#[tokio::test]
async fn absolute_form_names_one_host() {
    let attacked = Attacked::start().await;
    for lines in [
        String::new(),
        "host: evil.example\r\n".to_owned(),
        "host:\r\n".to_owned(),
        format!("host: {HOST}:8443\r\n"),
        format!("host: {HOST}\r\nhost: {HOST}\r\n"),
        format!("host: {HOST}\r\nhost: evil.example\r\n"),
    ] {
        let head = format!("GET https://{HOST}/a HTTP/1.1\r\n{lines}authorization: Bearer {}\r\n\r\n", attacked.handle);
        let answer = attacked.raw(Way::BaseUrl, head.as_bytes()).await;
        assert_eq!(answer.status, 400, "{lines:?}: {}", answer.text());
    }
    let credential = format!("authorization: Bearer {}", attacked.handle);
    let head = format!("GET https://{HOST}/a HTTP/1.1\r\nhost: {HOST}\r\n{credential}\r\n\r\n");
    assert_eq!(attacked.raw(Way::BaseUrl, head.as_bytes()).await.status, 200);
    assert_eq!(attacked.api.take().len(), 1);
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// What follows a body in chunks does not leave: neither a credential nor a handle.
#[tokio::test]
async fn trailers_do_not_leave() {
    let attacked = Attacked::start().await;
    for way in WAYS {
        for trailer in [format!("x-handle: {}", attacked.handle), "authorization: Bearer own-secret".to_owned()] {
            let head = attacked.head(way, "POST", "/a");
            let body = format!("2;x={}\r\n{{}}\r\n0\r\n{trailer}\r\n\r\n", attacked.handle);
            let request = format!("{head}transfer-encoding: chunked\r\ntrailer: x-handle\r\n\r\n{body}");
            let answer = attacked.raw(way, request.as_bytes()).await;
            assert!(matches!(answer.status, 200 | 400 | 403), "{way:?} {trailer}: {}", answer.text());
            for request in attacked.api.take() {
                assert!(request.ends_with("\r\n2\r\n{}\r\n0\r\n\r\n"), "{way:?} {trailer}: {request}");
                assert!(!request.contains(&attacked.handle) && !request.contains("own-secret"), "{request}");
            }
        }
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// D-12: a redirect is the caller's business. Nothing follows it here, and nobody listens in vain.
#[tokio::test]
async fn redirects_are_followed_by_nobody_here() {
    let attacked = Attacked::start().await;
    let canary = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = canary.local_addr().expect("bound");
    let mut asked = 0;
    for way in WAYS {
        for status in [300, 301, 302, 303, 305, 307, 308] {
            for to in [
                format!("http://{address}/x"),
                format!("https://{address}/x"),
                format!("https://{HOST}:{}/x", address.port()),
                format!("http://{HOST}/x"),
                format!("//{address}/x"),
            ] {
                let answer = attacked.get(way, &format!("/redirect?{status}&{to}"), "").await;
                assert_eq!((answer.status, answer.header("location")), (status, to.as_str()), "{way:?}");
                assert_eq!(answer.header("refresh"), format!("0; url={to}"));
                asked += 1;
            }
        }
    }
    assert_eq!(attacked.api.take().len(), asked, "one request for each");
    // The first connection to the canary is our own.
    let own = TcpStream::connect(address).await.expect("connected");
    let (_, first) = tokio::time::timeout(PATIENCE, canary.accept()).await.expect("in time").expect("accepted");
    assert_eq!(first, own.local_addr().expect("bound"));
    attacked.world.stop().await;
}

/// D-13: a value that was captured with the connection says nothing but itself, wherever it is filled in.
#[tokio::test]
async fn captured_values_inject_nothing() {
    let lines = "paths = [\"/v1/{site}/\", \"/v2/\"]\nheaders.always = { x-site = \"site {site}\" }\n\
                 [[authorize.capture]]\nparameter = \"site\"\nto = \"site\"\npattern = '^[\\s\\S]*$'\n";
    let attacked = Attacked::with(HOST, lines).await;
    for (number, site) in
        ["a%0D%0Ax-evil:%20b", "a%0Ab", "a%00b", "%C3%A4", "a/../b", "..", "a?b", "a%23b", "a%26b=c", "a%252e", "a,b"]
            .iter()
            .enumerate()
    {
        let subject = format!("user-{number}");
        let begun = attacked.world.begin("raw", &subject).await;
        let (url, cookie) = attacked.world.callback_url(&begun).await;
        assert_eq!(attacked.world.callback(&format!("{url}&site={site}"), &cookie).await.status, 303, "{site}");
        let (_, handle) = attacked.world.handle(&subject).await;
        for way in WAYS {
            for path in ["/v1/0/x", "/v2/x"] {
                let head = attacked.head(way, "GET", path).replace(&attacked.handle, &handle);
                let answer = attacked.raw(way, format!("{head}\r\n").as_bytes()).await;
                let arrived = attacked.api.take();
                if answer.status == 200 {
                    let [request] = arrived.try_into().expect("exactly one");
                    assert_eq!(values(&request, "x-site").len(), 1, "{site}: {request}");
                    assert_eq!(values(&request, "x-evil"), Vec::<String>::new(), "{site}: {request}");
                    assert!(request.starts_with("GET /v2/x HTTP/1.1\r\n") || *site == "a,b", "{site}: {request}");
                } else {
                    assert!(arrived.is_empty(), "{site}: {arrived:?}");
                    assert!(matches!(answer.status, 400 | 403 | 500), "{site}: {} {}", answer.status, answer.text());
                }
            }
        }
    }
    attacked.world.stop().await;
}

/// D-14: methods that APIs do not use.
#[tokio::test]
async fn odd_methods_are_refused() {
    let attacked = Attacked::start().await;
    for way in WAYS {
        for method in ["TRACE", "TRACK", "CONNECT", "get", "PRI", "PROPFIND", &"A".repeat(300), "GET\t", "G\0T", ""] {
            let answer = attacked.raw(way, format!("{}\r\n", attacked.head(way, method, "/a")).as_bytes()).await;
            assert!(matches!(answer.status, 400 | 405), "{way:?} {method:?}: {} {}", answer.status, answer.text());
        }
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// D-16: what an API says that nobody asked reaches nobody.
#[tokio::test]
async fn answers_nobody_asked_for_reach_nobody() {
    let attacked = Attacked::start().await;
    for way in WAYS {
        for round in 0..5 {
            // Two answers for one request.
            assert_eq!(attacked.get(way, "/twice", "").await.text(), "/twice", "{round}");
            assert_eq!(attacked.get(way, "/own", "").await.text(), "/own", "{round}");
            // Bytes on a connection that waits in the pool.
            assert_eq!(attacked.get(way, "/idle", "").await.text(), "/idle", "{round}");
            attacked.api.go_on.notify_one();
            tokio::time::timeout(PATIENCE, attacked.api.reached.notified()).await.expect("written");
            assert_eq!(attacked.get(way, "/own", "").await.text(), "/own", "{round}");
            // An answer after its caller has gone.
            let mut gone = attacked.caller(way).await;
            gone.write(format!("{}\r\n", attacked.head(way, "GET", "/late")).as_bytes()).await;
            tokio::time::timeout(PATIENCE, attacked.api.reached.notified()).await.expect("asked");
            drop(gone);
            attacked.api.go_on.notify_one();
            assert_eq!(attacked.get(way, "/own", "").await.text(), "/own", "{round}");
        }
    }
    attacked.world.stop().await;
}

/// D-16: a flood of interim answers ends with its own request.
#[tokio::test]
async fn interim_answers_stay_with_their_request() {
    let attacked = Attacked::start().await;
    for way in WAYS {
        let mut caller = attacked.caller(way).await;
        caller.write(format!("{}connection: close\r\n\r\n", attacked.head(way, "GET", "/early")).as_bytes()).await;
        let received = caller.read_to_end().await;
        assert_eq!(received.matches("HTTP/1.1 200 ").count(), 1, "{way:?}");
        assert!(received.ends_with("/early"), "{way:?}");
        let mut next = attacked.caller(way).await;
        next.write(format!("{}connection: close\r\n\r\n", attacked.head(way, "GET", "/own")).as_bytes()).await;
        let received = next.read_to_end().await;
        assert!(received.starts_with("HTTP/1.1 200 ") && received.ends_with("/own"), "{way:?}: {received}");
    }
    attacked.world.stop().await;
}
