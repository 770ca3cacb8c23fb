//! The names of a database that decide whether a statement can be proven to be a read: of all its
//! functions whether they may do more than look, and of relations, types and operators those behind
//! which something of that kind hides.
//!
//! A name stands for everything of that name in any schema, so that neither the search path nor the
//! types of arguments need to be known. Only hashes of names are kept, with a key of this process's
//! own: nobody can choose a name that is taken for another.

use std::hash::{BuildHasher, RandomState};

use super::Reason;
use super::keywords::Keyword;
use super::lexer::NAME_LEN_MAX;

pub use super::question::QUESTION;

/// Names that a database may have before nothing is proven of it any more.
pub const NAMES_MAX: usize = 100_000;

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u64);

const FUNCTION: u64 = 1;
const UNSAFE_FUNCTION: u64 = 1 << 1;
const UNSAFE_RELATION: u64 = 1 << 2;
const UNSAFE_TYPE: u64 = 1 << 3;
const KEYWORD_SHIFT: u32 = 8;
const HASH: u64 = !0xffff;

impl Entry {
    const NONE: Self = Self(0);

    /// Why whoever names it is suspect.
    #[inline]
    pub(super) fn doubt(self) -> Option<Reason> {
        match self.0 & (UNSAFE_FUNCTION | UNSAFE_RELATION | UNSAFE_TYPE) {
            0 => None,
            flags if flags & UNSAFE_FUNCTION != 0 => Some(Reason::Function),
            flags if flags & UNSAFE_RELATION != 0 => Some(Reason::Relation),
            _ => Some(Reason::Type),
        }
    }

    /// Whether there is a function of that name, and none that is unsafe.
    #[inline]
    pub(super) fn is_safe_function(self) -> bool {
        self.0 & (FUNCTION | UNSAFE_FUNCTION) == FUNCTION
    }

    /// The keyword that it is without quotes.
    #[inline]
    pub(super) fn keyword(self) -> Keyword {
        Keyword::of_number((self.0 >> KEYWORD_SHIFT) as u8)
    }
}

/// See the module. The default is that of a database of which nothing was read yet.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// Hash, keyword and flags of each name, at the place that the hash says or behind it; a power of
    /// two of them, at least half of them zero.
    table: Box<[u64]>,
    shift: u32,
    key: [u64; 2],
    names: usize,
    operators: Box<[Box<[u8]>]>,
    /// An unsafe name has bytes beyond ASCII: how a client's encoding spells them is not known.
    unsafe_beyond_ascii: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unread,
    Read,
    /// Nothing can be proven of any statement, for this reason.
    Hopeless(Reason),
}

impl Default for Catalogue {
    fn default() -> Self {
        let mut catalogue = Builder::default().build();
        catalogue.state = State::Unread;
        catalogue
    }
}

impl Catalogue {
    /// Of the rows that a database answers [`QUESTION`] with: kind and name.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut builder = Builder::default();
        for (kind, name) in rows {
            builder.add(kind, name);
        }
        builder.build()
    }

    /// Whether it was read from a database.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.state != State::Unread
    }

    /// Names in it, keywords left out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names
    }

    /// Whether no name is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names == 0
    }

    /// Memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let operators = self.operators.iter().map(|name| name.len() + 16);
        size_of::<Self>() + self.table.len() * 8 + operators.sum::<usize>()
    }

    /// Why no statement can be proven, if none can.
    #[inline]
    pub(super) fn hopeless(&self) -> Option<Reason> {
        match self.state {
            State::Read => None,
            State::Unread => Some(Reason::NoCatalogue),
            State::Hopeless(reason) => Some(reason),
        }
    }

    #[inline]
    pub(super) fn has_unsafe_beyond_ascii(&self) -> bool {
        self.unsafe_beyond_ascii
    }

    /// Whether the operator may do more than look.
    #[inline]
    pub(super) fn is_unsafe_operator(&self, name: &[u8]) -> bool {
        !self.operators.is_empty() && self.operators.iter().any(|op| **op == *name)
    }

    /// What is known of a name of `len` bytes, which zeros fill up to a multiple of eight.
    #[inline]
    pub(super) fn entry(&self, padded: &[u8], len: usize) -> Entry {
        let hash = hash(self.key, padded, len) & HASH;
        let mask = self.table.len() - 1;
        let mut at = (hash >> self.shift) as usize;
        loop {
            let found = self.table[at & mask];
            if found == 0 {
                return Entry::NONE;
            }
            if found & HASH == hash {
                return Entry(found);
            }
            at += 1;
        }
    }
}

#[inline]
fn hash(key: [u64; 2], padded: &[u8], len: usize) -> u64 {
    let mut state = key[0] ^ len as u64;
    for word in padded.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("BUG: eight bytes"));
        state = fold(state ^ word, key[1]);
    }
    fold(state, key[0] | 1)
}

/// Both halves of the product, one upon the other.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Takes the rows of the answer to [`QUESTION`] one by one.
#[derive(Debug)]
pub struct Builder {
    key: [u64; 2],
    /// Hash and flags, as they came.
    found: Vec<u64>,
    operators: Vec<Box<[u8]>>,
    unsafe_beyond_ascii: bool,
    hopeless: Option<Reason>,
}

impl Default for Builder {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            key: [random.hash_one(0), random.hash_one(1) | 1],
            found: Vec::new(),
            operators: Vec::new(),
            unsafe_beyond_ascii: false,
            hopeless: None,
        }
    }
}

impl Builder {
    /// One row: its kind and the name. A kind that is not known means that nothing can be proven.
    pub fn add(&mut self, kind: &[u8], name: &[u8]) {
        if self.found.len() + self.operators.len() >= NAMES_MAX {
            self.hopeless = Some(Reason::TooManyNames);
            return;
        }
        let flags = match kind {
            b"safe" => FUNCTION,
            b"function" => FUNCTION | UNSAFE_FUNCTION,
            b"relation" => UNSAFE_RELATION,
            b"type" => UNSAFE_TYPE,
            b"operator" => return self.add_operator(name),
            // A cast between built-in types, which is made without being named.
            _ => {
                self.hopeless = Some(Reason::Type);
                return;
            }
        };
        self.unsafe_beyond_ascii |= flags != FUNCTION && !name.is_ascii();
        self.insert(name, flags);
    }

    fn add_operator(&mut self, name: &[u8]) {
        // Sorting, grouping, IN, BETWEEN and LIKE use these without naming them.
        let silent = [
            &b"="[..],
            b"<>",
            b"<",
            b">",
            b"<=",
            b">=",
            b"~~",
            b"!~~",
            b"~~*",
            b"!~~*",
            b"~",
        ];
        if silent.contains(&name) {
            self.hopeless = Some(Reason::Operator);
        }
        self.operators.push(name.into());
    }

    fn insert(&mut self, name: &[u8], flags: u64) {
        // A longer one cannot be named.
        if name.len() > NAME_LEN_MAX {
            return;
        }
        let mut padded = [0; NAME_LEN_MAX + 1];
        padded[..name.len()].copy_from_slice(name);
        let hash = hash(
            self.key,
            &padded[..name.len().next_multiple_of(8)],
            name.len(),
        );
        self.found.push((hash & HASH) | flags);
    }

    /// All of it.
    #[must_use]
    pub fn build(mut self) -> Catalogue {
        let mut names = self.found.clone();
        names.sort_unstable_by_key(|found| found & HASH);
        names.dedup_by_key(|found| *found & HASH);
        for (text, keyword) in Keyword::all() {
            self.insert(
                text.as_bytes(),
                u64::from(keyword.number()) << KEYWORD_SHIFT,
            );
        }
        let size = (self.found.len() * 2).next_power_of_two().max(1024);
        let mut table = vec![0; size].into_boxed_slice();
        let shift = 64 - size.trailing_zeros();
        for found in self.found {
            let mut at = (found >> shift) as usize;
            while table[at & (size - 1)] != 0 && table[at & (size - 1)] & HASH != found & HASH {
                at += 1;
            }
            table[at & (size - 1)] |= found;
        }
        debug_assert!(table.iter().filter(|e| **e != 0).count() * 2 <= size);
        Catalogue {
            table,
            shift,
            key: self.key,
            names: names.len(),
            operators: self.operators.into(),
            unsafe_beyond_ascii: self.unsafe_beyond_ascii,
            state: self.hopeless.map_or(State::Read, State::Hopeless),
        }
    }
}
