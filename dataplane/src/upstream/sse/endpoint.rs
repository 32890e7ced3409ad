//! The address for POSTs that a server names: of the stream's own origin only, for token and
//! headers are sent there.

use http::{Uri, uri::PathAndQuery};

/// Path and query of what `named` stands for, seen from the stream's address (RFC 3986, 5.2,
/// without dot segments, which servers do not send).
///
/// # Errors
/// It is no address, or one of another origin.
pub(super) fn resolve(stream: &Uri, named: &str) -> Result<Uri, String> {
    let foreign = || "it names an address of another origin for POSTs, which is refused".to_owned();
    if named.starts_with("//") || named.starts_with('\\') {
        return Err(foreign());
    }
    let path = if named.starts_with('/') {
        named.to_owned()
    } else if named.starts_with('?') {
        format!("{}{named}", stream.path())
    } else if let Some(absolute) = absolute(named) {
        if origin(&absolute) != origin(stream) {
            return Err(foreign());
        }
        absolute
            .path_and_query()
            .map_or("/", PathAndQuery::as_str)
            .to_owned()
    } else {
        let folder = stream
            .path()
            .rfind('/')
            .map_or("", |at| &stream.path()[..at]);
        format!("{folder}/{named}")
    };
    let wrong = || "its first event names no address for POSTs".to_owned();
    let path: PathAndQuery = path.parse().map_err(|_| wrong())?;
    Ok(Uri::from(path))
}

fn absolute(named: &str) -> Option<Uri> {
    let scheme = named.split_once(':')?.0;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    // What cannot be read as an address has an origin of its own.
    is_scheme.then(|| named.parse().unwrap_or_default())
}

fn origin(uri: &Uri) -> Option<(String, String, u16)> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri
        .port_u16()
        .unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_posts_is_of_the_same_origin() {
        let stream: Uri = "https://h:8443/a/sse?x=1".parse().unwrap();
        for (named, path) in [
            ("/messages/?session_id=7", "/messages/?session_id=7"),
            ("messages?s=7", "/a/messages?s=7"),
            ("?s=7", "/a/sse?s=7"),
            ("https://H:8443/m?s=7", "/m?s=7"),
            ("HTTPS://h:8443", "/"),
        ] {
            assert_eq!(resolve(&stream, named).unwrap(), path, "{named}");
        }
        for foreign in [
            "https://h/m",
            "http://h:8443/m",
            "https://other:8443/m",
            "//other/m",
            "\\\\other/m",
            "file:///etc/passwd",
            "https://h:8443@other/m",
            "javascript:x",
            "",
        ] {
            let resolved = resolve(&stream, foreign);
            let inside = resolved.as_ref().is_ok_and(|uri| uri.authority().is_none());
            assert!(
                resolved.is_err() || inside && foreign.is_empty(),
                "{foreign}: {resolved:?}"
            );
        }
        assert!(resolve(&"http://h/sse".parse().unwrap(), "http://h:80/m").is_ok());
        assert!(resolve(&stream, "/a b").is_err());
    }
}
