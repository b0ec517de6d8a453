//! Names in the address of a request. What the tenant's paths and queries are is said where they are sent.

/// A name as one segment of a path. One that is empty, or that would lead to another path, becomes `..`, and with that no request is
/// sent: see [`leads_elsewhere`].
pub(super) fn segment(name: &str) -> String {
    // Some servers and proxies decode `%2F` before they resolve dots.
    let dots = name.split(['/', '\\']).any(|part| matches!(part, "." | ".."));
    if name.is_empty() || dots { "..".to_owned() } else { encoded(name) }
}

/// Whether a name can be a segment of a path. What cannot is no name by which anything could be asked for.
pub(super) fn is_segment(name: &str) -> bool {
    !leads_elsewhere(&segment(name))
}

/// A text as one value of a query or a form.
pub(super) fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Whether the path of a target has a segment that a URL parser would resolve to another path.
pub(super) fn leads_elsewhere(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    path.split('/').any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_another_path_is_no_segment() {
        for name in ["", ".", "..", "a/../b", "../a", "a/..", "a\\..\\b", "a/./b"] {
            assert!(leads_elsewhere(&format!("api/service/runs/{}/stop", segment(name))), "{name:?}");
            assert!(!is_segment(name), "{name:?}");
        }
        for (name, written) in
            [("a", "a"), ("...", "..."), ("a..b", "a..b"), ("a/b?c", "a%2Fb%3Fc"), ("a:b", "a%3Ab"), ("%2e%2e", "%252e%252e")]
        {
            assert_eq!(segment(name), written);
            assert!(is_segment(name));
            assert!(!leads_elsewhere(&format!("api/service/runs/{}/stop", segment(name))), "{name:?}");
        }
    }
}
