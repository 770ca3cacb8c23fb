//! The status page: one document without a network of its own, put together from three files.
//!
//! A browser runs nothing but the script that stands in it: its Content-Security-Policy allows the style and
//! the script by their hashes, and requests to where the page came from. So what clients call themselves
//! could do nothing even if the script took it for HTML, which it never does.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The document, and what a browser may do with it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) html: String,
    pub(super) policy: String,
}

/// The page. It is the same for everybody.
pub(super) fn page() -> &'static Page {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(|| {
        let (style, script) = (STYLE.trim_end(), SCRIPT.trim_end());
        let html = FRAME
            .replace("/* style */", style)
            .replace("/* script */", script);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(script),
            hash(style),
        );
        Page { html, policy }
    })
}

/// As a Content-Security-Policy names what it allows.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between two tags is what was hashed: a browser would run nothing otherwise.
    #[test]
    fn the_policy_allows_what_stands_in_the_page_and_nothing_else() {
        let page = page();
        for (tag, kind) in [("script", "script-src"), ("style", "style-src")] {
            let (_, rest) = page.html.split_once(&format!("<{tag}>")).expect(tag);
            let (text, rest) = rest.split_once(&format!("</{tag}>")).expect(tag);
            assert!(!rest.contains(&format!("<{tag}")), "one {tag} only");
            let allowed = format!("{kind} '{}'", hash(text));
            assert!(page.policy.contains(&allowed), "{}", page.policy);
        }
        assert!(!page.policy.contains("unsafe"), "{}", page.policy);
    }

    /// The script makes text of what it is told, never HTML, and the page asks nobody but the pooler.
    #[test]
    fn the_page_takes_nothing_for_html_and_knows_no_other_host() {
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "Function(",
            "setAttribute(\"on",
            "setAttribute(\"style",
            "style=",
            "onclick=",
        ] {
            assert!(!page().html.contains(never), "{never}");
        }
        let namespace = "http://www.w3.org/2000/svg";
        let without = page().html.replace(namespace, "");
        assert!(!without.contains("http://") && !without.contains("https://"));
        assert!(!without.contains("@import") && !without.contains("url("));
    }
}
