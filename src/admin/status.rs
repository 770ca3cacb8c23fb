//! What the console's sheets say now, as JSON for the endpoint of the metrics.
//!
//! The rows are those of SHOW POOLS, QUEUE and HOSTS, filled from one census, so that what a
//! browser shows and what the console shows cannot disagree. One census serves everybody who asks
//! within [`FRESH`]; who asks during a census waits for it.

use std::time::{Duration, Instant};

use serde_json::{Map, Number, Value};

use super::portal::HIDDEN;
use super::sheet::{Kind, Shown};
use super::{Desk, Scope, View, show};

/// How long a collected status is given out.
const FRESH: Duration = Duration::from_secs(1);

/// When the status was collected, and its JSON.
pub(super) type Collected = Option<(Instant, String)>;

impl Desk {
    /// An object with the arrays `pools`, `queue` and `hosts`: an object a row, its members are the
    /// columns of the SHOW of that name. At most a second old. Texts of statements are hidden, as
    /// from those who are no admins: who asks has not logged in.
    pub async fn status(&self) -> String {
        let mut collected = self.collected.lock().await;
        if let Some((at, text)) = &*collected
            && at.elapsed() < FRESH
        {
            return text.clone();
        }
        let mut view = self.look(Scope::Busy).await;
        view.hide_texts(HIDDEN);
        let mut all = Map::new();
        let sheets: [(&str, &dyn Shown); 3] = [
            ("pools", &show::POOLS),
            ("queue", &show::QUEUE),
            ("hosts", &show::HOSTS),
        ];
        for (name, sheet) in sheets {
            all.insert(name.to_owned(), self.objects(sheet, &view));
        }
        let text = Value::Object(all).to_string();
        *collected = Some((Instant::now(), text.clone()));
        text
    }

    fn objects(&self, sheet: &dyn Shown, view: &View) -> Value {
        let heads = sheet.heads();
        let object = |row: Vec<Option<String>>| {
            let members = heads.iter().zip(row);
            let member =
                |(&(name, kind), cell): (&(&str, Kind), _)| (name.to_owned(), value(kind, cell));
            Value::Object(members.map(member).collect())
        };
        sheet.rows(self, view).into_iter().map(object).collect()
    }
}

/// Numbers as numbers; all else, whoever wrote it, as text.
fn value(kind: Kind, cell: Option<String>) -> Value {
    let Some(text) = cell else {
        return Value::Null;
    };
    match (kind, text.parse::<Number>()) {
        (Kind::Int4 | Kind::Int8 | Kind::Numeric, Ok(number)) => Value::Number(number),
        _ => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, value};

    #[test]
    fn text_stays_text_and_numbers_are_numbers() {
        let json = |kind, cell: Option<&str>| value(kind, cell.map(str::to_owned)).to_string();
        assert_eq!(json(Kind::Text, Some("7")), "\"7\"");
        assert_eq!(json(Kind::Int8, Some("7")), "7");
        assert_eq!(json(Kind::Numeric, Some("0.5")), "0.5");
        assert_eq!(json(Kind::Int4, None), "null");
        let hostile = "\"},<script>\n\0\\";
        assert_eq!(
            json(Kind::Text, Some(hostile)),
            r#""\"},<script>\n\u0000\\""#
        );
    }
}
