//! stub
mod summary;
pub use summary::{Begin, PACKED_BITS, Summary, pack, unpack};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reason {
    Other,
    TooLong,
    Transaction,
    Unreadable,
    Several,
    Empty,
    Refused,
    NoCatalogue,
    ThisHost,
}
#[allow(missing_docs)]
impl Reason {
    pub fn name(self) -> &'static str {
        [
            "other",
            "too_long",
            "transaction",
            "unreadable",
            "several",
            "empty",
            "refused",
            "no_catalogue",
            "this_host",
        ][self as usize]
    }
    pub const ALL: &[Self] = &[
        Self::Other,
        Self::TooLong,
        Self::Transaction,
        Self::Unreadable,
        Self::Several,
        Self::Empty,
        Self::Refused,
        Self::NoCatalogue,
        Self::ThisHost,
    ];
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Route {
    Auto,
    Primary,
    Replica,
    PreferReplica,
}
#[allow(missing_docs)]
impl Route {
    pub const ALL: [Self; 4] = [
        Self::Auto,
        Self::Primary,
        Self::Replica,
        Self::PreferReplica,
    ];
    pub fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "auto" => Self::Auto,
            "primary" => Self::Primary,
            "replica" => Self::Replica,
            "prefer-replica" => Self::PreferReplica,
            _ => return None,
        })
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Consistency {
    Eventual,
    Session,
}
#[allow(missing_docs)]
impl Consistency {
    pub const ALL: [Self; 2] = [Self::Eventual, Self::Session];
    pub fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "eventual" => Self::Eventual,
            "session" => Self::Session,
            _ => return None,
        })
    }
}
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Hints {
    pub route: Option<Route>,
    pub consistency: Option<Consistency>,
}
#[allow(missing_docs)]
#[derive(Debug, PartialEq)]
pub struct Catalogue;
#[allow(missing_docs)]
pub struct Rows;
#[allow(missing_docs)]
impl Rows {
    pub fn add(&mut self, _: &[u8], _: &[u8]) {}
    pub fn finish(self) -> Catalogue {
        Catalogue
    }
}
#[allow(missing_docs)]
impl Catalogue {
    pub fn rows() -> Rows {
        Rows
    }
}
#[allow(missing_docs)]
pub const QUESTION: &str = "SELECT 'a','b'";
#[allow(missing_docs)]
pub fn classify(text: &[u8], _: Option<&Catalogue>) -> Summary {
    let t = String::from_utf8_lossy(text).to_ascii_lowercase();
    if t.contains(';') {
        return Summary::Unproven(Reason::Several);
    }
    if t.starts_with("select") && !t.contains("for update") && !t.contains("nextval") {
        Summary::Read
    } else if t.starts_with("begin") {
        Summary::Begin(Begin {
            read_only: t.contains("read only").then_some(true),
            serializable: false,
        })
    } else {
        Summary::Unproven(Reason::Other)
    }
}
#[allow(missing_docs)]
pub fn hints(_: &[u8]) -> Hints {
    Hints::default()
}
#[allow(missing_docs)]
pub fn fingerprint(t: &[u8]) -> u64 {
    t.iter()
        .fold(7, |a, b| a.wrapping_mul(31).wrapping_add(u64::from(*b)))
}
#[allow(missing_docs)]
pub fn summarize(c: &Summary) -> Summary {
    *c
}
