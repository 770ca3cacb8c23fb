//! What a server says of itself at login, and how a client is told.
//!
//! In a pool by session it is kept up to date, because the next client of the server is told the same.

use pooler_protocol::backend::{tag, write_parameter_status};
use pooler_protocol::frame::write_message;
use pooler_protocol::settings::Settings;

/// Bytes of notices that are kept; what is beyond that stands in the log alone.
const NOTICES_LEN_MAX: usize = 16 * 1024;

/// Bytes of what is sent beside it, in the same message to the client.
const ROOM_BESIDE: usize = 128;

/// The notices and the ParameterStatus messages of a login, in the order sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Welcome {
    /// Messages, one behind the other.
    notices: Vec<u8>,
    parameters: Vec<Parameter>,
    /// Those of the parameters, one behind the other: every login of a client sends them.
    statuses: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    value: String,
    /// Where its message ends in the statuses; it begins where the one before ends.
    end: usize,
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
        let known = self.parameters.iter_mut().find(|p| p.name == name);
        if let Some(parameter) = known {
            value.clone_into(&mut parameter.value);
            self.statuses.clear();
            for parameter in &mut self.parameters {
                write_parameter_status(&mut self.statuses, &parameter.name, &parameter.value);
                parameter.end = self.statuses.len();
            }
            return;
        }
        write_parameter_status(&mut self.statuses, name, value);
        self.parameters.push(Parameter {
            name: name.to_owned(),
            value: value.to_owned(),
            end: self.statuses.len(),
        });
    }

    /// The value of `name`, compared without case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        let at = self.position(name)?;
        Some(&self.parameters[at].value)
    }

    fn position(&self, name: &str) -> Option<usize> {
        let mut all = self.parameters.iter();
        all.position(|p| p.name.eq_ignore_ascii_case(name))
    }

    /// Writes the notices, and ParameterStatus for each parameter as a session with `settings` sees it.
    pub fn write(&self, settings: &Settings, out: &mut Vec<u8>) {
        out.reserve(self.notices.len() + self.statuses.len() + ROOM_BESIDE);
        out.extend_from_slice(&self.notices);
        let reported = settings.iter();
        let reported = reported.filter_map(|(name, value)| Some((self.position(name)?, value)));
        let mut changed: Vec<_> = reported.collect();
        changed.sort_unstable();
        let mut from = 0;
        for (at, value) in changed {
            let start = at.checked_sub(1).map_or(0, |at| self.parameters[at].end);
            out.extend_from_slice(&self.statuses[from..start]);
            write_parameter_status(out, &self.parameters[at].name, value);
            from = self.parameters[at].end;
        }
        out.extend_from_slice(&self.statuses[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(welcome: &Welcome, settings: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        welcome.write(&Settings::from_pairs(settings.iter().copied()), &mut out);
        out
    }

    fn messages(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in parameters {
            write_parameter_status(&mut out, name, value);
        }
        out
    }

    #[test]
    fn every_parameter_is_told_in_its_place_as_the_session_sees_it() {
        let mut welcome = Welcome::default();
        for (name, value) in [
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
            ("a", "1"),
            ("z", ""),
        ] {
            welcome.put(name, value);
        }
        let told = |settings: &[(&str, &str)], expected: &[(&str, &str)]| {
            assert_eq!(
                written(&welcome, settings),
                messages(expected),
                "{settings:?}"
            );
        };
        let born = [
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
            ("a", "1"),
            ("z", ""),
        ];
        told(&[], &born);
        told(&[("work_mem", "1MB")], &born);
        let (first, last) = (("DateStyle", "German"), ("z", "26"));
        told(
            &[("datestyle", "German")],
            &[first, born[1], born[2], born[3]],
        );
        told(&[("z", "26")], &[born[0], born[1], born[2], last]);
        told(
            &[("z", "26"), ("DATESTYLE", "German")],
            &[first, born[1], born[2], last],
        );
        let all = [first, ("TimeZone", "PRC"), ("a", ""), last];
        told(&all, &all);
    }

    #[test]
    fn what_changes_is_told_as_it_is_now_behind_the_notices() {
        let mut welcome = Welcome::default();
        welcome.put("a", "1");
        welcome.put("b", "2");
        welcome.put("a", "longer than before");
        welcome.note(b"notice");
        let mut expected = Vec::new();
        write_message(&mut expected, tag::NOTICE_RESPONSE, |b| {
            b.extend_from_slice(b"notice");
        });
        expected.extend(messages(&[("a", "longer than before"), ("b", "2")]));
        assert_eq!(written(&welcome, &[]), expected);
        assert_eq!(welcome.find("B"), Some("2"));
    }
}
