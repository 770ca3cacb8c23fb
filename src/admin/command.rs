//! The commands: one row each, with who may give it, what it takes, what it does and what it is for.
//!
//! A row is all that there is to a command: SHOW HELP is made of the rows, and the permission is
//! looked at in one place for all of them (trap 62).

use super::act::Verb;
use super::sheet::Shown;
use super::show;
use super::words;
use super::{Desk, Scope};
use crate::error::Refusal;

/// Who may give a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Nobody that the console knows.
    Stranger,
    /// `stats_users`: they look, and change nothing.
    Stats,
    /// `admin_users`.
    Admin,
}

impl Rank {
    /// Of `user`, as configured now.
    pub(super) fn of(desk: &Desk, user: &str) -> Self {
        let current = desk.registry.current();
        if current.config.is_admin(user) {
            Self::Admin
        } else if current.config.is_stats(user) {
            Self::Stats
        } else {
            Self::Stranger
        }
    }
}

/// What a command does.
pub(super) enum Does {
    /// Shows this, after a look at these sessions.
    Show(&'static dyn Shown, Scope),
    /// Acts.
    Act(Verb),
}

/// One row.
pub(super) struct Command {
    /// Its words.
    pub(super) name: &'static str,
    /// What it takes, as SHOW HELP says it.
    pub(super) takes: &'static str,
    /// How many words that may be.
    arity: std::ops::RangeInclusive<usize>,
    rank: Rank,
    pub(super) does: Does,
    /// What it is for.
    pub(super) help: &'static str,
}

/// The one command that is read in a way of its own.
const EXPLAIN: &str = "EXPLAIN ROUTE";

use Rank::{Admin, Stats};
use Scope::{Busy, Everybody, Nobody};

/// Every command there is.
pub(super) static COMMANDS: &[Command] = &[
    act("SHOW HELP", "", 0, 0, Stats, Verb::Help, "this list"),
    show(
        "SHOW ACTIVE_SOCKETS",
        &show::ACTIVE_SOCKETS,
        Everybody,
        "connections with something in their buffers",
    ),
    show(
        "SHOW CLIENTS",
        &show::CLIENTS,
        Everybody,
        "sessions, and what they run",
    ),
    show(
        "SHOW CONFIG",
        &show::CONFIG,
        Nobody,
        "settings: value, default, whether they can change",
    ),
    show(
        "SHOW DATABASES",
        &show::DATABASES,
        Nobody,
        "what can be connected to",
    ),
    show(
        "SHOW DNS_HOSTS",
        &show::DNS_HOSTS,
        Nobody,
        "empty: names are looked up by the system",
    ),
    show(
        "SHOW DNS_ZONES",
        &show::DNS_ZONES,
        Nobody,
        "empty, likewise",
    ),
    Command {
        name: EXPLAIN,
        takes: "statement",
        arity: 1..=1,
        rank: Rank::Stats,
        does: Does::Show(&show::EXPLAIN, Nobody),
        help: "where a statement would go in each database, and why",
    },
    Command {
        name: "EXPLAIN LOGIN",
        takes: "user db [address[+tls]|local]",
        arity: 2..=3,
        rank: Rank::Stats,
        does: Does::Show(&show::LOGIN, Nobody),
        help: "which rule decides about a client, and where secrets come from",
    },
    act("SHOW FDS", "", 0, 0, Admin, Verb::ShowFds, "not supported"),
    show(
        "SHOW HOSTS",
        &show::HOSTS,
        Nobody,
        "hosts: role, health, lag, load",
    ),
    show(
        "SHOW LISTS",
        &show::LISTS,
        Nobody,
        "how many there are of what",
    ),
    show(
        "SHOW MEM",
        &show::MEM,
        Everybody,
        "memory that can be told apart",
    ),
    show("SHOW PEERS", &show::PEERS, Nobody, "empty: there are none"),
    show(
        "SHOW PEER_POOLS",
        &show::PEER_POOLS,
        Nobody,
        "empty, likewise",
    ),
    show(
        "SHOW PINS",
        &show::PINS,
        Busy,
        "clients that are kept on a server, and why",
    ),
    show(
        "SHOW POOLS",
        &show::POOLS,
        Nobody,
        "pools: clients, servers, waiting",
    ),
    show(
        "SHOW PREPARED",
        &show::PREPARED,
        Nobody,
        "prepared statements: made, used again, given up",
    ),
    show(
        "SHOW QUEUE",
        &show::QUEUE,
        Busy,
        "who waits, for how long, and for whom",
    ),
    show(
        "SHOW ROUTES",
        &show::ROUTES,
        Nobody,
        "statements by where they went, and why",
    ),
    show("SHOW SERVERS", &show::SERVERS, Busy, "server connections"),
    show(
        "SHOW SETTINGS",
        &show::SETTINGS,
        Nobody,
        "settings, as SHOW CONFIG, with the line that each comes from, and its unit",
    ),
    show(
        "SHOW SOCKETS",
        &show::SOCKETS,
        Everybody,
        "clients and servers side by side",
    ),
    show(
        "SHOW STATE",
        &show::STATE,
        Nobody,
        "active, paused or suspended",
    ),
    show(
        "SHOW STATS",
        &show::STATS,
        Nobody,
        "totals and averages by database",
    ),
    show(
        "SHOW STATS_AVERAGES",
        &show::STATS_AVERAGES,
        Nobody,
        "the averages",
    ),
    show(
        "SHOW STATS_TOTALS",
        &show::STATS_TOTALS,
        Nobody,
        "the totals",
    ),
    show(
        "SHOW TOTALS",
        &show::TOTALS,
        Nobody,
        "all databases together",
    ),
    show("SHOW USERS", &show::USERS, Nobody, "users and their limits"),
    show("SHOW VERSION", &show::VERSION, Nobody, "the version"),
    act(
        "SET",
        "key = value",
        3,
        3,
        Admin,
        Verb::Set,
        "change a setting until the next RELOAD",
    ),
    act(
        "RELOAD",
        "",
        0,
        0,
        Admin,
        Verb::Reload,
        "read the configuration again",
    ),
    act(
        "PAUSE",
        "[db] [timeout]",
        0,
        2,
        Admin,
        Verb::Pause,
        "close all server connections as they become free; clients wait",
    ),
    act(
        "SUSPEND",
        "[timeout]",
        0,
        1,
        Admin,
        Verb::Suspend,
        "send what is unsent, then read from nobody; clients keep their servers",
    ),
    act(
        "RESUME",
        "[db]",
        0,
        1,
        Admin,
        Verb::Resume,
        "end PAUSE, SUSPEND or KILL",
    ),
    act(
        "DISABLE",
        "db",
        1,
        1,
        Admin,
        Verb::Disable,
        "let nobody new in",
    ),
    act("ENABLE", "db", 1, 1, Admin, Verb::Enable, "end DISABLE"),
    act(
        "RECONNECT",
        "[db]",
        0,
        1,
        Admin,
        Verb::Reconnect,
        "replace server connections as they become free",
    ),
    act(
        "KILL",
        "[db]",
        0,
        1,
        Admin,
        Verb::Kill,
        "end all sessions at once, and pause",
    ),
    act(
        "KILL_CLIENT",
        "id",
        1,
        1,
        Admin,
        Verb::KillClient,
        "end one session (id of SHOW CLIENTS)",
    ),
    act(
        "WAIT_CLOSE",
        "[db] [timeout]",
        0,
        2,
        Admin,
        Verb::WaitClose,
        "wait until RECONNECT or RELOAD is through",
    ),
    act(
        "SHUTDOWN",
        "[WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]",
        0,
        1,
        Admin,
        Verb::Shutdown,
        "stop",
    ),
    // Drivers say these of their own accord.
    act("BEGIN", "", 0, 9, Stats, Verb::Nothing("BEGIN"), ""),
    act("COMMIT", "", 0, 9, Stats, Verb::Nothing("COMMIT"), ""),
    act("ROLLBACK", "", 0, 9, Stats, Verb::Nothing("ROLLBACK"), ""),
];

const fn show(
    name: &'static str,
    sheet: &'static dyn Shown,
    scope: Scope,
    help: &'static str,
) -> Command {
    Command {
        name,
        takes: "",
        arity: 0..=0,
        rank: Rank::Stats,
        does: Does::Show(sheet, scope),
        help,
    }
}

const fn act(
    name: &'static str,
    takes: &'static str,
    least: usize,
    most: usize,
    rank: Rank,
    verb: Verb,
    help: &'static str,
) -> Command {
    Command {
        name,
        takes,
        arity: least..=most,
        rank,
        does: Does::Act(verb),
        help,
    }
}

/// A command with what it was given.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) command: &'static Command,
    pub(super) arguments: Vec<String>,
}

/// The command in `text`; none if there is nothing in it.
///
/// # Errors
/// 42601, if it is not one; 42501, if it is not for `rank`.
pub(super) fn read(text: &str, rank: Rank) -> Result<Option<Given>, Refusal> {
    if let Some(given) = read_explain(text) {
        given.check(rank)?;
        return Ok(Some(given));
    }
    let words = words::split(text)?;
    if words.is_empty() {
        return Ok(None);
    }
    let is_prefix = |name: &str| {
        let mut given = words.iter();
        let same = |word: &str| given.next().is_some_and(|g| g.eq_ignore_ascii_case(word));
        name.split(' ').all(same)
    };
    let found = COMMANDS.iter().filter(|c| is_prefix(c.name));
    let Some(command) = found.max_by_key(|c| c.name.len()) else {
        return Err(unknown(&words));
    };
    let arguments = words[command.name.split(' ').count()..].to_vec();
    let given = Given { command, arguments };
    // In this order: what a command takes is nobody's business who may not give it.
    given.check(rank)?;
    if !command.arity.contains(&given.arguments.len()) {
        return Err(usage(command));
    }
    Ok(Some(given))
}

/// What is behind EXPLAIN ROUTE is a statement of somebody else's language, and taken as it stands.
fn read_explain(text: &str) -> Option<Given> {
    let mut rest = text.trim_start();
    for word in EXPLAIN.split(' ') {
        let (first, behind) = rest.split_once(char::is_whitespace)?;
        if !first.eq_ignore_ascii_case(word) {
            return None;
        }
        rest = behind.trim_start();
    }
    let command = COMMANDS.iter().find(|command| command.name == EXPLAIN)?;
    (!rest.is_empty()).then(|| Given {
        command,
        arguments: vec![rest.to_owned()],
    })
}

impl Given {
    /// Whether `rank` may give it: the only place where that is decided.
    ///
    /// # Errors
    /// 42501, if not.
    pub(super) fn check(&self, rank: Rank) -> Result<(), Refusal> {
        if rank >= self.command.rank {
            return Ok(());
        }
        let message = format!("permission denied for {}", self.command.name);
        Err(Refusal::error("42501", message)
            .hint("Only admin_users of the pooler's configuration may do this."))
    }
}

/// How a command is to be used.
pub(super) fn usage(command: &Command) -> Refusal {
    let form = format!("{} {}", command.name, command.takes);
    Refusal::error("42601", format!("usage: {}", form.trim_end()))
        .hint("SHOW HELP lists all commands.")
}

fn unknown(words: &[String]) -> Refusal {
    let given = match words {
        [show, what, ..] if show.eq_ignore_ascii_case("show") => format!("SHOW {what}"),
        _ => words[0].clone(),
    };
    let known = COMMANDS.iter().map(|c| c.name);
    let near = |name: &str| {
        (
            strsim::osa_distance(&given.to_uppercase(), name),
            name.to_owned(),
        )
    };
    let nearest = known.map(near).min().filter(|(distance, _)| *distance <= 3);
    let hint = match nearest {
        Some((_, name)) => format!("Perhaps {name}; SHOW HELP lists all commands."),
        None => "SHOW HELP lists all commands.".to_owned(),
    };
    Refusal::error("42601", format!("unknown command {given:?}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t62_whoever_only_looks_may_give_no_command_that_acts() {
        for command in COMMANDS {
            let text = match command.name {
                EXPLAIN => "EXPLAIN ROUTE SELECT 1",
                "EXPLAIN LOGIN" => "EXPLAIN LOGIN a b",
                name => name,
            };
            let stranger = read(text, Rank::Stranger).err().expect(text);
            assert_eq!(stranger.sqlstate, "42501", "{text}");
            let harmless = match command.does {
                Does::Show(..) => true,
                Does::Act(verb) => matches!(verb, Verb::Help | Verb::Nothing(_)),
            };
            let stats = read(text, Rank::Stats).err().map(|e| e.sqlstate);
            assert_eq!(stats, (!harmless).then(|| "42501".to_owned()), "{text}");
            let admin = read(text, Rank::Admin).err().map(|e| e.sqlstate);
            assert!(admin.is_none_or(|code| code == "42601"), "{text}");
        }
    }

    #[test]
    fn names_are_unique_and_the_longest_is_meant() {
        for (n, command) in COMMANDS.iter().enumerate() {
            assert!(COMMANDS[..n].iter().all(|other| other.name != command.name));
        }
        let given = |text| {
            read(text, Rank::Admin)
                .ok()
                .flatten()
                .map(|g| g.command.name)
        };
        assert_eq!(given("show stats"), Some("SHOW STATS"));
        assert_eq!(given("Show Stats_Totals;"), Some("SHOW STATS_TOTALS"));
        assert_eq!(given(""), None);
    }

    #[test]
    fn a_command_that_is_not_known_is_told_the_nearest() {
        let refusal = read("SHOW POLS", Rank::Stats).err().expect("an error");
        assert_eq!(refusal.sqlstate, "42601");
        assert!(refusal.hint.contains("SHOW POOLS"), "{}", refusal.hint);
    }
}
