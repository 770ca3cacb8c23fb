//! The enums of the configuration: each variant is one word that an operator writes.

use std::fmt;

use super::keys::Choice;

/// An enum whose variants are words; an alias after `|` is read but never shown.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $word:literal $(| $alias:literal)*,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The words, for a row of the table of keys.
            pub(crate) const CHOICE: Choice = Choice {
                words: Self::WORDS,
                parse: |word| Self::from_word(word).map(Self::word),
            };

            /// The word of the configuration.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The variant that a word stands for, aliases included.
            pub fn from_word(word: &str) -> Option<$name> {
                match word { $($word $(| $alias)* => Some($name::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// How long a client keeps its server connection.
    PoolMode {
        /// As long as the client stays connected.
        Session = "session",
        /// For one transaction.
        Transaction = "transaction",
        /// For one statement; transactions of several statements are refused.
        Statement = "statement",
    }
}

words! {
    /// What to do, in transaction mode, with state that only one connection can hold.
    OnSessionState {
        /// Keep the client on that server until the state is gone.
        Pin = "pin",
        /// Refuse the statement with 0A000.
        Error = "error",
        /// Let it pass, and let it be lost.
        Ignore = "ignore",
    }
}

words! {
    /// Which statements may leave the primary.
    Routing {
        /// None.
        Off = "off",
        /// Those whose hint, `SET` or startup option says so.
        Explicit = "explicit",
        /// Those that are proven to read only.
        Auto = "auto",
    }
}

words! {
    /// Where the statements of a session go that does not say so itself.
    Route {
        /// Where they belong: proven reads to replicas, all else to the primary.
        Auto = "auto",
        /// All to the primary.
        Primary = "primary",
        /// All to replicas; a write fails.
        Replica = "replica",
        /// All to replicas that can take them; a write goes to the primary.
        PreferReplica = "prefer-replica",
    }
}

words! {
    /// What a read on a replica must have seen.
    ReadConsistency {
        /// Anything within the lag limit.
        Eventual = "eventual",
        /// The session's own writes.
        Session = "session",
    }
}

words! {
    /// How a client proves who it is.
    AuthType {
        /// Not at all.
        Trust = "trust",
        /// A password in clear text.
        Password = "password",
        /// An md5 challenge.
        Md5 = "md5",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
        /// A client certificate.
        Cert = "cert",
        /// Whatever the first matching line of `hba_file` says.
        Hba = "hba",
    }
}

words! {
    /// How much TLS is asked for, as libpq's `sslmode`.
    TlsMode {
        /// Never.
        Disable = "disable",
        /// If the other side insists.
        Allow = "allow",
        /// If the other side can.
        Prefer = "prefer",
        /// Always.
        Require = "require",
        /// Always, and the certificate must be signed by `ca`.
        VerifyCa = "verify-ca",
        /// As `verify-ca`, and the certificate must name the host.
        VerifyFull = "verify-full",
    }
}

impl TlsMode {
    /// Whether it does not go without.
    #[must_use]
    pub fn is_required(self) -> bool {
        matches!(self, TlsMode::Require) || self.is_verified()
    }

    /// Whether the other side's certificate must be shown and good.
    #[must_use]
    pub fn is_verified(self) -> bool {
        matches!(self, TlsMode::VerifyCa | TlsMode::VerifyFull)
    }
}

words! {
    /// The oldest version of TLS that is spoken.
    TlsVersion {
        /// 1.2 and 1.3.
        V12 = "TLSv1.2",
        /// 1.3 alone.
        V13 = "TLSv1.3",
    }
}

words! {
    /// How a server is asked for TLS, as libpq's `sslnegotiation`.
    TlsNegotiation {
        /// By PostgreSQL's SSLRequest.
        Postgres = "postgres",
        /// By beginning with it.
        Direct = "direct",
    }
}

words! {
    /// Whether logins to servers are bound to their certificates, as libpq's `channel_binding`.
    TlsBinding {
        /// Never.
        Disable = "disable",
        /// Where the server can.
        Prefer = "prefer",
        /// Always.
        Require = "require",
    }
}

words! {
    /// Where a read goes when no local replica can take it.
    ReadFallback {
        /// The primary, if it is in this datacenter.
        LocalPrimary = "local-primary",
        /// A replica in another datacenter.
        RemoteReplica = "remote-replica",
        /// The primary, wherever it is.
        Primary = "primary",
    }
}

words! {
    /// The shape of a log line.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// The least severe message that is logged.
    LogLevel {
        /// What someone must look at.
        Error = "error",
        /// Also what the pooler recovered from.
        Warn = "warn",
        /// Also what happens seldom.
        Info = "info",
        /// Also clients that come and go.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// The role that a host is pinned to.
    Role {
        /// Takes writes.
        Primary = "primary" | "master",
        /// Serves reads only.
        Replica = "replica",
    }
}
