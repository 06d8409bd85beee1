//! What an operator types after `/`: words that must all match.
//!
//! `text` is found in any part, `!text` must not be, `label:team=pay` and `label:team` ask the
//! labels, `state:failed` the state, and `job:`, `worker:`, `outcome:` and `trigger:` the
//! field of that name. Case does not matter.

/// A parsed filter. The empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    text: String,
    terms: Vec<Term>,
}

/// One word of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Whether it must not match.
    pub inverse: bool,
    /// What it asks.
    pub ask: Ask,
}

/// What a word asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Lower-case text, anywhere.
    Text(String),
    /// A label, with a value or any.
    Label(String, Option<String>),
    /// A field by name: `state`, `job`, `worker`, `outcome`, `trigger`.
    Field(&'static str, String),
}

/// What a filter looks at.
pub trait Subject {
    /// Everything that plain text is looked for in, in lower case.
    fn contains(&self, lower: &str) -> bool;
    /// Whether it carries the label, in any case.
    fn has_label(&self, key: &str, value: Option<&str>) -> bool;
    /// Whether the field has this lower-case value.
    fn field_is(&self, field: &str, lower: &str) -> bool;
}

const FIELDS: [&str; 5] = ["state", "job", "worker", "outcome", "trigger"];

impl Filter {
    /// Reads what was typed; any text is a filter.
    pub fn parse(text: &str) -> Self {
        let terms = text.split_whitespace().filter_map(term).collect();
        Self { text: text.to_owned(), terms }
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Its words.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether all words match.
    pub fn matches(&self, subject: &impl Subject) -> bool {
        self.terms.iter().all(|term| {
            let found = match &term.ask {
                Ask::Text(text) => subject.contains(text),
                Ask::Label(key, value) => subject.has_label(key, value.as_deref()),
                Ask::Field(field, value) => subject.field_is(field, &value.to_lowercase()),
            };
            found != term.inverse
        })
    }
}

fn term(word: &str) -> Option<Term> {
    let (inverse, word) = match word.strip_prefix('!') {
        Some("") => return None,
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let lower = word.to_lowercase();
    let ask = match lower.split_once(':') {
        Some(("label", label)) if !label.is_empty() => match label.split_once('=') {
            Some((key, value)) => Ask::Label(key.to_owned(), Some(value.to_owned())),
            None => Ask::Label(label.to_owned(), None),
        },
        Some((field, value)) if !value.is_empty() => {
            match FIELDS.into_iter().find(|f| *f == field) {
                // As it was typed: the store compares exactly.
                Some(field) => Ask::Field(field, word.chars().skip(field.len() + 1).collect()),
                None => Ask::Text(lower),
            }
        }
        _ => Ask::Text(lower),
    };
    Some(Term { inverse, ask })
}

/// Whether `text` contains `lower` in any case, without allocating for ASCII.
pub fn contains_folded(text: &str, lower: &str) -> bool {
    if text.is_ascii() && lower.is_ascii() {
        let (text, lower) = (text.as_bytes(), lower.as_bytes());
        return lower.is_empty()
            || text.windows(lower.len()).any(|window| window.eq_ignore_ascii_case(lower));
    }
    text.to_lowercase().contains(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(&'static str);

    impl Subject for Row {
        fn contains(&self, lower: &str) -> bool {
            contains_folded(self.0, lower)
        }
        fn has_label(&self, key: &str, value: Option<&str>) -> bool {
            key == "team" && value.is_none_or(|v| v == "pay")
        }
        fn field_is(&self, field: &str, lower: &str) -> bool {
            field == "state" && lower == "failed"
        }
    }

    #[test]
    fn every_word_must_match() {
        let row = Row("Settle the Books 每日");
        for yes in [
            "",
            "settle",
            "BOOKS settle",
            "!hourly",
            "label:team",
            "label:team=pay state:failed",
            "!state:paused",
            "每日",
            "!",
        ] {
            assert!(Filter::parse(yes).matches(&row), "{yes}");
        }
        for no in ["hourly", "!settle", "label:tem", "label:team=x", "state:paused", "a:b"] {
            assert!(!Filter::parse(no).matches(&row), "{no}");
        }
    }
}
