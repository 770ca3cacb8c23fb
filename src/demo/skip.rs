//! Tests that need what not every machine allows: they say that nothing was tried, and fail where it must be.

use std::fmt::Display;
use std::io::Write;

/// What this machine must have, by commas: `POOLER_TEST_REQUIRE=io_uring,ptrace`. A test that cannot have it fails then.
const REQUIRED: &str = "POOLER_TEST_REQUIRE";

/// A test that needs `what` does nothing, because this machine has not got it. Said past the harness, which keeps what
/// successful tests print.
///
/// # Panics
/// If the environment says that it must have it.
pub fn skipped(what: &str, why: &dyn Display) {
    let required = std::env::var(REQUIRED).unwrap_or_default();
    let test = std::thread::current();
    let test = test.name().unwrap_or("a test").to_owned();
    assert!(
        !is_required(&required, what),
        "{REQUIRED} wants {what}: {why}"
    );
    // Whether anybody reads it is not the test's business.
    let _written = writeln!(
        std::io::stderr(),
        "{test} SKIPPED: it needs {what} ({why}); {REQUIRED}={what} makes that a failure"
    );
}

fn is_required(required: &str, what: &str) -> bool {
    required.split(',').any(|word| word.trim() == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_a_list() {
        for (required, is) in [
            ("", false),
            ("io_uring", true),
            ("ptrace, io_uring", true),
            ("io_uring_2,ptrace", false),
        ] {
            assert_eq!(is_required(required, "io_uring"), is, "{required}");
        }
    }
}
