//! A slow statement as a line of the log.

use std::fmt::Write;

use pooler_protocol::frame::split_cstr;
use pooler_protocol::route::{mask, may_name_secret};

use super::Statement;
use crate::config::Log;
use crate::log::AS_OFTEN_AS_IT_HAPPENS;
use crate::net::Peer;

/// Whose it was, and where it ran.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The client.
    pub user: &'a str,
    /// As the client calls it.
    pub database: &'a str,
    /// The client's address.
    pub peer: Peer,
    /// What the client calls itself.
    pub application_name: &'a str,
    /// Host and port.
    pub server: &'a str,
}

/// Logs `statement`, or does not, as `log.slow_query_sample_rate` says.
pub fn log_slow(statement: &Statement, origin: &Origin<'_>, log: &Log) {
    if log.slow_query_sample_rate < 1.0 && rand::random::<f64>() >= log.slow_query_sample_rate {
        return;
    }
    let sqlstate = statement.sqlstate.as_ref();
    // Fields that are none are left out.
    tracing::info!(
        target: AS_OFTEN_AS_IT_HAPPENS,
        seconds = (statement.waited + statement.ran).as_secs_f64(),
        waited_seconds = statement.waited.as_secs_f64(),
        ran_seconds = statement.ran.as_secs_f64(),
        user = origin.user,
        database = origin.database,
        peer = %origin.peer,
        application_name = origin.application_name,
        server = origin.server,
        rows = statement.rows,
        bytes = statement.bytes,
        sqlstate = sqlstate.map(|code| String::from_utf8_lossy(code).into_owned()),
        trace_id = statement.caller.map(|caller| hex(&caller.trace_id)),
        statement = shown(statement, log),
        parameters = parameters(statement, log),
        "slow statement"
    );
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The text as it may be shown.
fn shown(statement: &Statement, log: &Log) -> String {
    if log.slow_query_literals && !may_name_secret(&statement.text) {
        return String::from_utf8_lossy(&statement.text).into_owned();
    }
    let mut masked = Vec::new();
    mask(&statement.text, &mut masked);
    String::from_utf8_lossy(&masked).into_owned()
}

/// Bytes of a parameter's value that are shown.
const VALUE_LEN_MAX: usize = 256;

/// The values of a Bind, if they are asked for and the text names no secret.
fn parameters(statement: &Statement, log: &Log) -> Option<String> {
    if !log.slow_query_parameters || may_name_secret(&statement.text) {
        return None;
    }
    let mut rest = &statement.bind[..];
    for _name in 0..2 {
        rest = split_cstr(rest)?.1;
    }
    let formats = take_i16(&mut rest)?;
    let formats: Vec<i16> = (0..formats).map_while(|_| take_i16(&mut rest)).collect();
    let count = take_i16(&mut rest)?;
    let mut text = String::new();
    for n in 0..usize::try_from(count).ok()? {
        let length = rest.split_off(..4)?;
        let length = i32::from_be_bytes(length.try_into().ok()?);
        let format = match formats.len() {
            1 => formats[0],
            _ => formats.get(n).copied().unwrap_or(0),
        };
        let comma = if n > 0 { ", " } else { "" };
        let value = match usize::try_from(length) {
            Err(_) => "NULL".to_owned(),
            Ok(length) => {
                let value = rest.split_off(..length)?;
                let front = &value[..length.min(VALUE_LEN_MAX)];
                let dots = if length > VALUE_LEN_MAX { "..." } else { "" };
                match format {
                    0 => format!("{:?}{dots}", String::from_utf8_lossy(front)),
                    _ => format!("\\x{}{dots}", hex(front)),
                }
            }
        };
        // A string takes everything.
        let _written = write!(text, "{comma}${} = {value}", n + 1);
    }
    Some(text).filter(|text| !text.is_empty())
}

fn take_i16(rest: &mut &[u8]) -> Option<i16> {
    let bytes = rest.split_off(..2)?;
    Some(i16::from_be_bytes(bytes.try_into().ok()?))
}
