//! A pooler before the PostgreSQL that all tests of a binary share, with a database of the test's own: what a test leaves
//! behind, only it can see.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pooler::demo::{NAME, postgres::Postgres};

use super::{Builder, Pooler, Wire, wait_until};

/// A condition of `pg_stat_activity`: the pooler's server connections to this database. Sessions of the tests themselves,
/// which have a name, may be seen for a while after they have ended; autovacuum comes when it likes.
pub const SERVERS: &str = "FROM pg_stat_activity WHERE datname = current_database() \
    AND backend_type = 'client backend' AND application_name <> 'pooler demo'";

/// Ends the idle servers that are logged in as `user`, and waits until they are gone: a query that is sent just then would
/// meet one.
pub fn end_servers(postgres: &Postgres, user: &str) {
    let theirs = format!("FROM pg_stat_activity WHERE usename = '{user}'");
    postgres
        .psql(&format!("SELECT pg_terminate_backend(pid) {theirs}"))
        .expect("SQL");
    wait_until("they are gone", || {
        let left = postgres.psql(&format!("SELECT count(*) {theirs}"));
        left.is_ok_and(|n| n.trim() == "0")
    });
}

/// The PostgreSQL of this test binary.
pub fn postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| {
        let builder = Postgres::builder().max_connections(400);
        builder.start().expect("PostgreSQL")
    })
}

/// See the module.
pub struct Rig {
    /// The pooler, which trusts everyone.
    pub pooler: Pooler,
    /// The test's own database.
    pub database: String,
}

impl Rig {
    /// The usual pooler.
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    /// A changed pooler.
    pub fn with(change: impl FnOnce(Builder) -> Builder) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("db{number}");
        let created = postgres().psql(&format!("CREATE DATABASE {database}"));
        created.expect("a database");
        Self {
            pooler: change(Pooler::before(postgres())).start(),
            database,
        }
    }

    /// A session through the pooler.
    pub fn login(&self) -> Wire {
        self.pooler.login("postgres", &self.database)
    }

    /// A session through the pooler with more startup parameters.
    pub fn login_with(&self, more: &[(&str, &str)]) -> Wire {
        let mut parameters = vec![("user", "postgres"), ("database", &*self.database)];
        parameters.extend_from_slice(more);
        Wire::login_with(self.pooler.port(), &parameters, "")
    }

    /// A login with these startup parameters is refused in PostgreSQL's own words, as without the pooler. How long that
    /// took.
    pub fn assert_refused_as_directly(&self, asked: &[(&str, &str)]) -> Duration {
        let says = |port| match Wire::try_login(port, asked, "") {
            Err(error) => error.body,
            Ok(_) => panic!("{asked:?} were taken"),
        };
        let theirs = says(postgres().port());
        let began = Instant::now();
        assert_eq!(says(self.pooler.port()), theirs, "{asked:?}");
        began.elapsed()
    }

    /// A session with PostgreSQL itself.
    pub fn direct(&self) -> Wire {
        let named = [
            ("user", "postgres"),
            ("database", &*self.database),
            ("application_name", NAME),
        ];
        Wire::login_with(postgres().port(), &named, "")
    }

    /// A connection to the pooler that has said nothing.
    pub fn connect(&self) -> Wire {
        Wire::connect(self.pooler.port())
    }

    /// Runs SQL on PostgreSQL itself.
    pub fn sql(&self, sql: &str) -> String {
        let result = postgres().psql_in(&self.database, sql);
        result.expect("SQL that works").trim().to_owned()
    }

    /// Waits until a query on PostgreSQL itself says `true`.
    pub fn wait_sql(&self, condition: &str) {
        let mut direct = self.direct();
        let sql = format!("SELECT {condition}");
        wait_until(condition, || direct.one(&sql) == "t");
    }

    /// What must hold after every fault: the pooler lives and serves, and no server connection of this database is busy, in a
    /// transaction, or left with settings of somebody who is gone.
    pub fn assert_sound(&self) {
        self.pooler.assert_serves("postgres", &self.database);
        let mut direct = self.direct();
        let busy = "SELECT coalesce(string_agg(pid || ' ' || state || ' ' || query, '; '), '')";
        let busy = format!("{busy} {SERVERS} AND state <> 'idle'");
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = direct.one(&busy);
            if left.is_empty() {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "server connections left busy: {left}\n{}",
                self.pooler.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut fresh = self.login();
        let foreign = "SELECT coalesce(string_agg(name || '=' || setting, ', '), '') FROM pg_settings WHERE source = 'session'";
        assert_eq!(fresh.one(foreign), "", "settings of another session");
        fresh.leave();
    }
}
