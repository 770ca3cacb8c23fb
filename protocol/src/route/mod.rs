//! Where a statement may run: whether it is proven to be a read, and what its hints ask for.
//!
//! No parser: [`classify`] goes through the words of a text once and says [`Verdict::Read`] only if
//! nothing that it saw can be more than a read, whatever the grammar makes of it. What it does not
//! understand is unproven, which costs a statement on the primary and nothing else. What a text cannot
//! show is looked up by name in the [`Catalogue`] of the database.
//!
//! It does not see: what a function does that is declared to be stable and is not, operators and casts
//! of a type that no name in the text shows, and what input functions of types do. A replica refuses
//! to write whatever it is asked.

mod begin;
mod caller;
mod catalogue;
mod classify;
mod explain;
mod fingerprint;
mod hint;
mod keywords;
mod lexer;
mod mask;
mod question;
mod show;
mod summary;

pub use caller::{
    Caller, TRACEPARENT_SETTING, TraceParent, find_caller, find_caller_if, may_have_comment,
    without_caller,
};
pub use catalogue::{Builder, Catalogue, NAMES_MAX, QUESTION};
pub use classify::{TEXT_LEN_MAX, classify};
pub use fingerprint::fingerprint;
pub use hint::{Consistency, Hints, Route, hints};
pub use mask::{mask, may_name_secret};
pub use summary::{PACKED_BITS, Summary, pack, unpack};

/// What a text was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One statement that is proven to be a read.
    Read,
    /// BEGIN or START TRANSACTION, and nothing else.
    Begin(TransactionMode),
    /// SET TRANSACTION, and nothing else; not SET SESSION CHARACTERISTICS.
    SetTransaction(TransactionMode),
    /// Blanks, comments and semicolons.
    Empty,
    /// Not proven to be any of these.
    Unproven(Doubt),
}

/// What BEGIN or SET TRANSACTION say of the transaction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TransactionMode {
    /// READ ONLY or READ WRITE, if it says either.
    pub read_only: Option<bool>,
    /// ISOLATION LEVEL SERIALIZABLE, which a replica refuses.
    pub serializable: bool,
}

/// Why a text is not proven, and the word that decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// Why.
    pub reason: Reason,
    /// Where the word begins in the text.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Doubt {
    /// The word, in the text that was classified.
    #[must_use]
    pub fn word<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal,)*) => {
        /// Why a text is not proven to be a read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As metrics and the console name it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// Another statement follows.
    SeveralStatements "several_statements",
    /// It writes: INSERT, UPDATE, DELETE, MERGE.
    Write "write",
    /// Another command than those that read.
    Command "command",
    /// FOR UPDATE, FOR NO KEY UPDATE, FOR SHARE, FOR KEY SHARE.
    Locking "locking",
    /// SELECT INTO.
    Into "into",
    /// A word of a writing statement behind WITH.
    ModifyingWith "modifying_with",
    /// A function of that name may do more than look, or its answer belongs to one host.
    Function "function",
    /// No function of that name was known when the names were read.
    UnknownFunction "unknown_function",
    /// A relation behind which such a function hides, or that a replica cannot read.
    Relation "relation",
    /// A type with such a function.
    Type "type",
    /// An operator with such a function.
    Operator "operator",
    /// A setting that each host has for itself.
    HostSetting "host_setting",
    /// An EXPLAIN with an option that is not known.
    Explain "explain",
    /// The server may see other words than these: quotes, encodings, versions, nesting.
    Unreadable "unreadable",
    /// Longer than [`TEXT_LEN_MAX`].
    TooLong "too_long",
    /// The database's names were not read yet.
    NoCatalogue "no_catalogue",
    /// The database has more than [`NAMES_MAX`] names.
    TooManyNames "too_many_names",
}

/// Whether a command with this tag (that of CommandComplete, without its zero byte) may have changed
/// what the [`Catalogue`] says in a way that a replica would not refuse: "CREATE FUNCTION", "DROP VIEW"
/// and the like. Not tables, which applications make all the time: one that a replica cannot read, it
/// refuses to read.
#[inline]
#[must_use]
pub fn changes_catalogue(tag: &[u8]) -> bool {
    let defined = [
        &b"FUNCTION"[..],
        b"PROCEDURE",
        b"ROUTINE",
        b"AGGREGATE",
        b"OPERATOR",
        b"TRIGGER",
        b"VIEW",
        b"RULE",
        b"POLICY",
        b"EXTENSION",
        b"CAST",
        b"TYPE",
        b"DOMAIN",
    ];
    matches!(tag.first(), Some(b'A' | b'C' | b'D'))
        && defined.iter().any(|what| tag.ends_with(what))
}

#[cfg(test)]
#[path = "../route_tests.rs"]
mod tests;
