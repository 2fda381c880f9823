//! Whether a browser is on plain `http://`, where it drops a `Secure` cookie. Only to say so in the log:
//! nothing that the layer does depends on what a request says of this (S-26).

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN, REFERER};
use http::uri::Authority;

/// Whether a browser sends this over plain `http://`, from a page of the same host, to another machine than
/// its own, which most browsers trust like `https://`.
///
/// It says where it is in `Origin` or `Referer`. `Sec-Fetch-Site` it sends over https alone (W3C Fetch
/// Metadata), as when the form of an old page leads there.
pub(super) fn is_on_plain_http(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name)?.to_str().ok();
    let page = text(ORIGIN).filter(|origin| *origin != "null");
    let page = page.or_else(|| text(REFERER));
    let Some((rest, host)) = page
        .and_then(|page| page.strip_prefix("http://"))
        .zip(text(HOST))
    else {
        return false;
    };
    if headers.contains_key("sec-fetch-site") {
        return false;
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let Ok(authority) = authority.parse::<Authority>() else {
        return false;
    };
    authority == *host && !is_this_machine(authority.host())
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_page_on_plain_http_is_known_by_what_its_browser_says() {
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[("origin", "http://192.168.0.7:3000")], true),
            (&[("referer", "http://192.168.0.7:3000/login?a")], true),
            (
                &[("origin", "null"), ("referer", "http://192.168.0.7:3000/")],
                true,
            ),
            (&[("origin", "https://192.168.0.7:3000")], false),
            (&[("referer", "https://192.168.0.7:3000/")], false),
            (
                &[
                    ("origin", "https://192.168.0.7:3000"),
                    ("referer", "http://192.168.0.7:3000/"),
                ],
                false,
            ),
            // A page on plain http whose form leads to https.
            (
                &[
                    ("origin", "http://192.168.0.7:3000"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            // A link from somewhere else.
            (&[("referer", "http://other.example/")], false),
            (&[("origin", "http://192.168.0.7:3001")], false),
            (&[("origin", "http://")], false),
            (&[("origin", "http://\u{e9}")], false),
            (&[], false),
        ];
        for (headers, expected) in table {
            let mut request = Request::builder().header(HOST, "192.168.0.7:3000");
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let request = request.body(()).unwrap();
            assert_eq!(
                is_on_plain_http(request.headers()),
                *expected,
                "{headers:?}"
            );
        }
        for host in [
            "localhost:3000",
            "shop.localhost",
            "127.0.0.1:3000",
            "[::1]:3000",
        ] {
            let request = Request::builder().header(HOST, host);
            let request = request.header(ORIGIN, format!("http://{host}"));
            assert!(
                !is_on_plain_http(request.body(()).unwrap().headers()),
                "{host}"
            );
        }
    }
}
