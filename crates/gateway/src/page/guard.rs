//! Who may ask: requests for this host, from pages of this origin, with the token where there is one.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri};

use crate::config::PageConfig;

/// Name of the cookie that holds the token.
const COOKIE_NAME: &str = "ultramotion_token";

/// What is asked of a request.
#[derive(Debug)]
pub(super) struct Guard {
    hosts: Vec<String>,
    token: String,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered.
    Pass,
    /// It brought the token in its address: it is answered once the cookie has it.
    Keep(String),
    /// It is refused, with a sentence.
    Refuse(StatusCode, &'static str),
}

impl Guard {
    pub(super) fn new(config: &PageConfig) -> Self {
        Guard { hosts: config.hosts.clone(), token: config.token.clone() }
    }

    /// Looks at a request. `open` is for what tells nobody anything.
    pub(super) fn judge(&self, uri: &Uri, headers: &HeaderMap, open: bool) -> Verdict {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(host) = text(HOST).filter(|host| self.is_this_host(host)) else {
            return Verdict::Refuse(
                StatusCode::MISDIRECTED_REQUEST,
                "This is not that host's page: ask for it by its address, or add the name to page.hosts.\n",
            );
        };
        let is_foreign = |origin: &str| origin.split_once("://").is_none_or(|(_, from)| from != host);
        if headers.contains_key(ORIGIN) && text(ORIGIN).is_none_or(is_foreign) {
            return Verdict::Refuse(StatusCode::FORBIDDEN, "Pages of other origins are not answered.\n");
        }
        if self.token.is_empty() || open {
            return Verdict::Pass;
        }
        let bearer = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let cookies = text(COOKIE).unwrap_or_default().split(';');
        let cookie =
            cookies.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE_NAME);
        if bearer.is_some_and(|token| self.is_token(token))
            || cookie.is_some_and(|(_, token)| self.is_token(token))
        {
            return Verdict::Pass;
        }
        let query = uri.query().unwrap_or_default().split('&');
        let asked = query.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == "token");
        match asked {
            Some((_, token)) if self.is_token(token) => {
                // A script must not have it, and another site must not send it.
                Verdict::Keep(format!("{COOKIE_NAME}={token}; Path=/; HttpOnly; SameSite=Strict"))
            }
            _ => Verdict::Refuse(
                StatusCode::UNAUTHORIZED,
                "This page needs its token: open it once as /?token=…, with page.token of the configuration.\n",
            ),
        }
    }

    /// Whether a name is this host's: an address, which nobody else can have a browser take for a name of their own, or a
    /// name that it is known by.
    fn is_this_host(&self, host: &str) -> bool {
        let is_address = |text: &str| text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        is_address(host)
            || is_address(host.trim_matches(['[', ']']))
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// In a time that does not tell how much of it was right.
    fn is_token(&self, given: &str) -> bool {
        let (given, token) = (given.as_bytes(), self.token.as_bytes());
        given.len() == token.len() && given.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn judge(guard: &Guard, uri: &str, headers: &[(&str, &str)]) -> Verdict {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.insert(axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        guard.judge(&uri.parse().unwrap(), &map, false)
    }

    fn status(verdict: Verdict) -> u16 {
        match verdict {
            Verdict::Refuse(status, _) => status.as_u16(),
            Verdict::Pass | Verdict::Keep(_) => 200,
        }
    }

    #[test]
    fn only_names_of_this_host_are_answered() {
        let guard = Guard { hosts: vec!["known.example".into()], token: String::new() };
        for (host, expected) in [
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("[::1]", 200),
            ("LocalHost:80", 200),
            ("KNOWN.example", 200),
            ("evil.example:8080", 421),
            ("127.0.0.1.evil.example", 421),
            ("", 421),
        ] {
            assert_eq!(status(judge(&guard, "/", &[("host", host)])), expected, "{host}");
        }
        assert_eq!(status(judge(&guard, "/", &[])), 421);
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let guard = Guard { hosts: Vec::new(), token: String::new() };
        for (origin, expected) in [
            ("http://127.0.0.1:8080", 200),
            ("http://127.0.0.1:9090", 403),
            ("http://evil.example", 403),
            ("null", 403),
        ] {
            let headers = [("host", "127.0.0.1:8080"), ("origin", origin)];
            assert_eq!(status(judge(&guard, "/api/stream", &headers)), expected, "{origin}");
        }
    }

    #[test]
    fn the_token_is_asked_for_once() {
        let guard = Guard { hosts: Vec::new(), token: TOKEN.into() };
        let host = ("host", "127.0.0.1");
        assert_eq!(status(judge(&guard, "/", &[host])), 401);
        assert_eq!(status(judge(&guard, "/?token=0123456789abcdeX", &[host])), 401);
        assert_eq!(status(judge(&guard, "/?token=0123", &[host])), 401);
        let uri = format!("/?a=b&token={TOKEN}");
        let Verdict::Keep(cookie) = judge(&guard, &uri, &[host]) else { panic!("a cookie") };
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        assert_eq!(judge(&guard, "/", &[host, ("cookie", &format!("x=1; {pair}"))]), Verdict::Pass);
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(judge(&guard, "/metrics", &[host, ("authorization", &bearer)]), Verdict::Pass);
        let open = guard.judge(
            &"/healthz".parse().unwrap(),
            &HeaderMap::from_iter([(HOST, "[::1]".parse().unwrap())]),
            true,
        );
        assert_eq!(open, Verdict::Pass);
    }
}
