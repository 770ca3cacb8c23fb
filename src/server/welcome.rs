//! What a server says of itself at login, and how a client is told.

use pooler_protocol::backend::write_parameter_status;
use pooler_protocol::settings::Settings;

/// The ParameterStatus messages of a login, in the order sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Welcome {
    parameters: Vec<(String, String)>,
}

impl Welcome {
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

    /// Writes ParameterStatus for each, as a session with `settings` sees them.
    pub fn write(&self, settings: &Settings, out: &mut Vec<u8>) {
        for (name, value) in &self.parameters {
            write_parameter_status(out, name, settings.find(name).unwrap_or(value));
        }
    }
}
