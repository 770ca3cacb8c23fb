//! What a new cluster shall be: settings, who may log in how, files.

use std::io;

use super::postgres::Postgres;

/// What a new cluster shall be.
#[derive(Clone, Debug)]
pub struct Builder {
    settings: Vec<(String, String)>,
    auth: String,
    hba: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
    initdb_args: Vec<String>,
}

/// Settings of every cluster; the caller's come after them and win.
const SETTINGS: [(&str, &str); 11] = [
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "replica"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("hot_standby", "on"),
    // A replica that was away still finds what it missed.
    ("wal_keep_size", "256MB"),
    // A replica looks for its primary again soon, not after 5 s.
    ("wal_retrieve_retry_interval", "200ms"),
    // Its files lie in the data directory and go with it, even after a crash.
    ("dynamic_shared_memory_type", "mmap"),
    ("log_line_prefix", "%m [%p] %q%u@%d %a "),
];

impl Builder {
    pub(super) fn new() -> Self {
        let auth = "trust".to_owned();
        Self {
            settings: Vec::new(),
            auth,
            hba: Vec::new(),
            files: Vec::new(),
            initdb_args: Vec::new(),
        }
    }

    /// A line of `postgresql.conf`; the value is quoted here.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `max_connections`; PostgreSQL's own default is 100.
    #[must_use]
    pub fn max_connections(self, connections: u32) -> Self {
        self.setting("max_connections", &connections.to_string())
    }

    /// The authentication method of everyone, `trust` if not set. The user `postgres` needs no password over the Unix socket.
    #[must_use]
    pub fn auth(mut self, method: &str) -> Self {
        method.clone_into(&mut self.auth);
        self
    }

    /// A line of `pg_hba.conf` that comes before those made from [`Builder::auth`].
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// A file in the data directory, readable by the server only, such as `server.key`.
    #[must_use]
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), contents.into()));
        self
    }

    /// An option for an `initdb` of its own. Without any, clusters are copies of one, with the same system identifier.
    #[must_use]
    pub fn initdb_arg(mut self, arg: &str) -> Self {
        self.initdb_args.push(arg.to_owned());
        self
    }

    /// Makes the cluster and starts it; it accepts connections when this returns.
    ///
    /// # Errors
    /// No PostgreSQL here (and what to install), or the server's own words.
    pub fn start(self) -> io::Result<Postgres> {
        let mut new = Postgres::prepare(self.auth)?;
        new.scratch
            .init_cluster(new.data_dir(), &self.initdb_args)?;
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        new.add_conf(SETTINGS.into_iter().chain(settings))?;
        new.set_hba(&self.hba.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (name, contents) in &self.files {
            new.write_file(name, contents)?;
        }
        new.start_on_free_port()?;
        Ok(new)
    }
}
