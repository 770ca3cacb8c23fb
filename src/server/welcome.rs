//! What a server says of itself at login, and how a client is told.
//!
//! In a pool by session it is kept up to date, because the next client of the server is told the same.

use pooler_protocol::backend::{tag, write_parameter_status};
use pooler_protocol::frame::write_message;
use pooler_protocol::settings::Settings;

/// Bytes of notices that are kept; what is beyond that stands in the log alone.
const NOTICES_LEN_MAX: usize = 16 * 1024;

/// The notices and the ParameterStatus messages of a login, in the order sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Welcome {
    /// Messages, one behind the other.
    notices: Vec<u8>,
    parameters: Vec<(String, String)>,
}

impl Welcome {
    /// Keeps a NoticeResponse by its body: whoever logs in directly gets it each time.
    pub fn note(&mut self, notice: &[u8]) {
        if self.notices.len() + notice.len() <= NOTICES_LEN_MAX {
            write_message(&mut self.notices, tag::NOTICE_RESPONSE, |b| {
                b.extend_from_slice(notice);
            });
        }
    }

    /// Notes that `name` is `value` now.
    pub fn put(&mut self, name: &str, value: &str) {
        match self.parameters.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => value.clone_into(v),
            None => self.parameters.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The value of `name`, compared without case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        all.find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// Writes the notices, and ParameterStatus for each parameter as a session with `settings` sees it.
    pub fn write(&self, settings: &Settings, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.notices);
        for (name, value) in &self.parameters {
            write_parameter_status(out, name, settings.find(name).unwrap_or(value));
        }
    }
}
