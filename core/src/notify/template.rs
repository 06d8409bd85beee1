//! The body of a message: a text with `{{job}}` and the like in it.

use crate::notify::Message;

/// What can stand between two pairs of braces, and what a message puts there.
pub const PLACEHOLDERS: [&str; 20] = [
    "attempt",
    "count",
    "durationSecs",
    "endTime",
    "err",
    "event",
    "exitCode",
    "fleet",
    "fromSlot",
    "id",
    "job",
    "outcome",
    "output",
    "run",
    "signal",
    "slot",
    "startTime",
    "text",
    "toSlot",
    "worker",
];

/// A template that has been read: its placeholders are all known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    escaping: Escaping,
}

/// How values are put into a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escaping {
    /// As the inside of a JSON string.
    Json,
    /// As they are.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(&'static str),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// An unknown placeholder, one that is not closed, or, where values are escaped for JSON, a text
    /// that would not be JSON.
    pub fn read(text: &str, escaping: Escaping) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) = after
                .split_once("}}")
                .ok_or_else(|| "a placeholder is not closed by }}".to_owned())?;
            let name = name.trim();
            let known = PLACEHOLDERS.into_iter().find(|known| *known == name).ok_or_else(|| {
                let all = PLACEHOLDERS.join(", ");
                format!("{{{{{name}}}}} is not known; there are {all}")
            })?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Value(known));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self { parts, escaping };
        if escaping == Escaping::Json {
            // A number where a number is wanted, and a text that needs escaping, are both tried.
            let number = template.fill(|_| "1".to_owned());
            let quoted = template.fill(|_| "\"".to_owned());
            let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text);
            is_json(&number).map_err(|e| format!("it would not be JSON: {e}"))?;
            // Where a placeholder stands outside of quotes only some values are JSON.
            is_json(&quoted).map_err(|_| {
                "it would not always be JSON: put each placeholder between quotes".to_owned()
            })?;
        }
        Ok(template)
    }

    /// The body of a message.
    pub fn render(&self, message: &Message) -> String {
        self.fill(|name| message.value(name))
    }

    fn fill(&self, value: impl Fn(&str) -> String) -> String {
        let mut body = String::new();
        for part in &self.parts {
            match (part, self.escaping) {
                (Part::Text(text), _) => body.push_str(text),
                (Part::Value(name), Escaping::None) => body.push_str(&value(name)),
                (Part::Value(name), Escaping::Json) => {
                    let quoted = serde_json::Value::String(value(name)).to_string();
                    body.push_str(quoted.strip_prefix('"').unwrap_or(&quoted));
                    // Only the last quote, as escaped ones may stand before it.
                    body.pop();
                }
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::failed;

    #[test]
    fn values_are_escaped_where_the_text_is_json_and_only_there() {
        let message = failed("said \"no\"\n\\ and \u{1} left");
        let json = Template::read(r#"{"text": "{{ err }} {{job}}"}"#, Escaping::Json).unwrap();
        let body: serde_json::Value = serde_json::from_str(&json.render(&message)).unwrap();
        assert_eq!(body["text"], "said \"no\"\n\\ and \u{1} left settle");
        let plain = Template::read("{{job}}: {{err}}", Escaping::None).unwrap();
        assert_eq!(plain.render(&message), "settle: said \"no\"\n\\ and \u{1} left");
    }

    #[test]
    fn a_value_is_not_read_as_a_template() {
        let plain = Template::read("{{err}}", Escaping::None).unwrap();
        assert_eq!(plain.render(&failed("{{job}}")), "{{job}}");
    }

    #[test]
    fn what_cannot_be_rendered_is_refused_when_it_is_read() {
        let wrong = |text: &str| Template::read(text, Escaping::Json).unwrap_err();
        assert!(
            wrong(r#"{"a":"{{jobs}}"}"#).starts_with("{{jobs}} is not known; there are attempt")
        );
        assert!(wrong(r#"{"a":"{{job"#).contains("not closed"));
        assert!(wrong("{{job}} failed").starts_with("it would not be JSON"));
        assert!(wrong(r#"{"a": {{attempt}}}"#).contains("between quotes"));
        assert!(Template::read("}} {{job}} failed", Escaping::None).is_ok());
    }

    #[test]
    fn every_placeholder_has_a_value_of_its_own() {
        let text = PLACEHOLDERS.map(|name| format!("{{{{{name}}}}}")).join("|");
        let filled = Template::read(&text, Escaping::None).unwrap().render(&failed("x"));
        assert_eq!(filled.split('|').count(), PLACEHOLDERS.len());
        assert!(PLACEHOLDERS.is_sorted());
    }
}
