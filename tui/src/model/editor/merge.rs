//! Three versions of a job, field by field: as it was when it was opened, as it is typed, and as
//! somebody else wrote it meanwhile.

use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};

/// Who changed a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Only this editor.
    Mine,
    /// Only somebody else.
    Theirs,
    /// Both, to the same.
    Same,
    /// Both, differently.
    Both,
}

/// A field that is not the same in the three versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name in JSON.
    pub field: String,
    /// Who changed it.
    pub who: Who,
    /// As it was; `None` where it was absent.
    pub base: Option<String>,
    /// As it is typed.
    pub mine: Option<String>,
    /// As it is in etcd.
    pub theirs: Option<String>,
}

/// The fields that differ, in the order of the versions.
pub fn differences(
    base: &Map<String, Value>,
    mine: &Map<String, Value>,
    theirs: &Map<String, Value>,
) -> Vec<Difference> {
    let mut fields: Vec<&String> = base.keys().collect();
    for key in mine.keys().chain(theirs.keys()) {
        if !fields.contains(&key) {
            fields.push(key);
        }
    }
    // The time of a write is in every write; it is nobody's change.
    fields.retain(|key| *key != "updatedAt");
    let differing = fields.into_iter().filter_map(|key| {
        let (base, mine, theirs) = (base.get(key), mine.get(key), theirs.get(key));
        let who = match (mine == base, theirs == base) {
            (true, true) => return None,
            (false, true) => Who::Mine,
            (true, false) => Who::Theirs,
            (false, false) if mine == theirs => Who::Same,
            (false, false) => Who::Both,
        };
        Some(Difference {
            field: key.clone(),
            who,
            base: base.map(shown),
            mine: mine.map(shown),
            theirs: theirs.map(shown),
        })
    });
    differing.collect()
}

/// A row of the three-way view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A field and who changed it.
    Field(String, Who),
    /// As it was.
    Was(String),
    /// As it is typed.
    Mine(String),
    /// As somebody else wrote it.
    Theirs(String),
    /// Between two fields.
    Gap,
}

/// The most rows that one version of a field takes.
const VERSION_ROWS: usize = 12;

/// The differences row by row. Of a text of many lines, only the lines that were changed.
pub fn rows(differences: &[Difference]) -> Vec<Row> {
    let mut rows = Vec::new();
    for difference in differences {
        if !rows.is_empty() {
            rows.push(Row::Gap);
        }
        let Difference { field, who, base, mine, theirs } = difference;
        rows.push(Row::Field(field.clone(), *who));
        let many = [base, mine, theirs].into_iter().flatten().any(|t| t.contains('\n'));
        let absent = || "(not set)".to_owned();
        if !many {
            rows.push(Row::Was(base.clone().unwrap_or_else(absent)));
            if *who != Who::Theirs {
                rows.push(Row::Mine(mine.clone().unwrap_or_else(absent)));
            }
            if *who != Who::Mine {
                rows.push(Row::Theirs(theirs.clone().unwrap_or_else(absent)));
            }
            continue;
        }
        let base = base.as_deref().unwrap_or_default();
        let mut version = |text: &Option<String>, row: fn(String) -> Row| {
            let text = text.as_deref().unwrap_or_default();
            rows.extend(changed_lines(base, text).into_iter().map(row));
        };
        if *who != Who::Theirs {
            version(mine, Row::Mine);
        }
        if *who != Who::Mine {
            version(theirs, Row::Theirs);
        }
    }
    rows
}

fn changed_lines(base: &str, version: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(base, version);
    let mut lines: Vec<String> = diff
        .iter_all_changes()
        .filter_map(|change| {
            let sign = match change.tag() {
                ChangeTag::Equal => return None,
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            Some(format!("{sign} {}", change.value().trim_end_matches('\n')))
        })
        .collect();
    if lines.len() > VERSION_ROWS {
        let more = lines.len() - VERSION_ROWS + 1;
        lines.truncate(VERSION_ROWS - 1);
        lines.push(format!("… and {more} more lines"));
    }
    lines
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_changed_what() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let base = map(json!({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "updatedAt": "x"}));
        let mine = map(json!({"a": 1, "b": 2, "c": 1, "d": 2, "e": 2, "updatedAt": "x"}));
        let theirs =
            map(json!({"a": 1, "b": 1, "c": 3, "d": 2, "e": 3, "f": "new", "updatedAt": "y"}));
        let found = differences(&base, &mine, &theirs);
        let who: Vec<_> = found.iter().map(|d| (d.field.as_str(), d.who)).collect();
        let expected = [
            ("b", Who::Mine),
            ("c", Who::Theirs),
            ("d", Who::Same),
            ("e", Who::Both),
            ("f", Who::Theirs),
        ];
        assert_eq!(who, expected);
        let rows = rows(&found[3..]);
        let expected = [
            Row::Field("e".to_owned(), Who::Both),
            Row::Was("1".to_owned()),
            Row::Mine("2".to_owned()),
            Row::Theirs("3".to_owned()),
            Row::Gap,
            Row::Field("f".to_owned(), Who::Theirs),
            Row::Was("(not set)".to_owned()),
            Row::Theirs("new".to_owned()),
        ];
        assert_eq!(rows, expected);
        assert_eq!(
            (found[4].base.clone(), found[4].theirs.clone()),
            (None, Some("new".to_owned()))
        );
    }

    #[test]
    fn of_a_long_text_only_changed_lines_are_shown() {
        let version = |change: &str| Some(format!("#!/bin/sh\nset -e\n{change}\n"));
        let difference = Difference {
            field: "command".to_owned(),
            who: Who::Both,
            base: version("a"),
            mine: version("b"),
            theirs: version("a\nc"),
        };
        let expected = [
            Row::Field("command".to_owned(), Who::Both),
            Row::Mine("- a".to_owned()),
            Row::Mine("+ b".to_owned()),
            Row::Theirs("+ c".to_owned()),
        ];
        assert_eq!(rows(&[difference]), expected);
    }
}
