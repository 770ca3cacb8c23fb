//! The sheets of SHOW, by what they are about.

use std::time::{Duration, Instant, SystemTime};

mod config;
mod login;
mod ours;
mod pools;
mod process;
mod routing;
mod sockets;
mod stats;

pub(super) use config::{CONFIG, SETTINGS};
pub(super) use login::LOGIN;
pub(super) use ours::{PINS, PREPARED, QUEUE, Queued, holders, waiting};
pub(super) use pools::{DATABASES, POOLS, PoolLine, USERS, pools_apart};
pub(super) use process::{DNS_HOSTS, DNS_ZONES, LISTS, MEM, PEER_POOLS, PEERS, STATE, VERSION};
pub(super) use routing::{EXPLAIN, HOSTS, HostLine, ROUTES, hosts};
pub(super) use sockets::{ACTIVE_SOCKETS, CLIENTS, SERVERS, SOCKETS};
pub(super) use stats::{STATS, STATS_AVERAGES, STATS_TOTALS, TOTALS};

use super::sheet::{Cell, is};

/// Whole seconds, for a column `wait`.
fn seconds(time: Duration) -> Cell {
    is(i32::try_from(time.as_secs()).unwrap_or(i32::MAX))
}

/// The microseconds behind them, for a column `wait_us`.
fn rest_us(time: Duration) -> Cell {
    is(time.subsec_micros())
}

/// A moment as PgBouncer writes it.
fn moment(at: Instant) -> Cell {
    let moment = SystemTime::now().checked_sub(at.elapsed())?;
    let since_1970 = moment.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(utc(since_1970.as_secs()))
}

/// Date and time of a second since 1970, in the Gregorian calendar.
fn utc(second: u64) -> String {
    let (mut day, second) = (second / 86_400, second % 86_400);
    let mut year = 1970;
    let is_leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let days_of = |y: u64| if is_leap(y) { 366 } else { 365 };
    while day >= days_of(year) {
        day -= days_of(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{:02} UTC",
        day + 1,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_dates() {
        for (second, shown) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (1_767_225_600, "2026-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(second), shown);
        }
    }
}
