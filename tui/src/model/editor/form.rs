//! The form: what is typed in each field, and what is wrong with it. Only fields whose text was
//! changed are written into the job; everything else of it stays as it was, also what this version
//! does not know.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use carillon_core::job::Job;
use carillon_core::schedule::{Schedule, ScheduleError};
use carillon_core::zones::parse_zone;
use chrono_tz::Tz;
use tui_textarea::TextArea;

use super::field::{Field, Kind};
use crate::model::input::Input;

/// Several lines of text.
#[derive(Debug)]
pub struct Block {
    /// The lines and the cursor.
    pub area: TextArea<'static>,
    /// The first row on the screen when it was last drawn: a memory of the view.
    pub scroll: Cell<usize>,
}

impl Block {
    /// Text with the cursor at its beginning.
    pub fn new(text: &str) -> Self {
        let mut area = TextArea::new(text.split('\n').map(str::to_owned).collect());
        area.set_max_histories(1_000);
        Self { area, scroll: Cell::new(0) }
    }

    /// The text.
    pub fn text(&self) -> String {
        self.area.lines().join("\n")
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` for a field that the form does not show.
    pub field: Option<Field>,
    /// What, for an operator.
    pub message: String,
}

/// What is typed of a job.
#[derive(Debug)]
pub struct Form {
    /// The job as it was when the form was opened.
    pub base: Job,
    /// Whether the name stands.
    pub named: bool,
    /// The field that gets the keys.
    pub focus: Field,
    /// The command.
    pub command: Block,
    inputs: BTreeMap<Field, Input>,
    choices: BTreeMap<Field, &'static str>,
    /// Fields that have been left once, so that what they lack may be said.
    seen: BTreeSet<Field>,
    problems: Vec<Problem>,
    schedule: Option<Result<Schedule, ScheduleError>>,
}

impl Form {
    /// The form of a job. Where the name stands it cannot be typed.
    pub fn new(base: Job, named: bool) -> Self {
        let mut inputs = BTreeMap::new();
        let mut choices = BTreeMap::new();
        for field in Field::ALL {
            let text = field.text(&base);
            match field.kind() {
                Kind::Line => {
                    inputs.insert(field, Input::new(&text));
                }
                Kind::Choice => {
                    let choice = field.choices().iter().find(|c| **c == text);
                    choices.insert(field, choice.copied().unwrap_or_default());
                }
                Kind::Lines => {}
            }
        }
        let mut form = Self {
            command: Block::new(&base.command),
            focus: if named { Field::Schedule } else { Field::Name },
            base,
            named,
            inputs,
            choices,
            seen: BTreeSet::new(),
            problems: Vec::new(),
            schedule: None,
        };
        form.check();
        form
    }

    /// The line of a field that has one.
    pub fn input(&self, field: Field) -> Option<&Input> {
        self.inputs.get(&field)
    }

    /// The line of a field that has one; [`Form::check`] is to follow a change.
    pub fn input_mut(&mut self, field: Field) -> Option<&mut Input> {
        self.inputs.get_mut(&field)
    }

    /// The text of a field.
    pub fn text(&self, field: Field) -> String {
        match field.kind() {
            Kind::Line => self.inputs.get(&field).map(|i| i.text().to_owned()),
            Kind::Choice => self.choices.get(&field).map(|c| (*c).to_owned()),
            Kind::Lines => Some(self.command.text()),
        }
        .unwrap_or_default()
    }

    /// Puts text into a field.
    pub fn set_text(&mut self, field: Field, text: &str) {
        match field.kind() {
            Kind::Line => {
                self.inputs.insert(field, Input::new(text));
            }
            Kind::Choice => {
                if let Some(choice) = field.choices().iter().find(|c| **c == text) {
                    self.choices.insert(field, choice);
                }
            }
            Kind::Lines => self.command = Block::new(text),
        }
        self.check();
    }

    /// Takes the next choice, or the one before.
    pub fn turn(&mut self, forward: bool) {
        let choices = self.focus.choices();
        let now = self.choices.get(&self.focus).copied().unwrap_or_default();
        let at = choices.iter().position(|c| *c == now).unwrap_or(0);
        let step = if forward { 1 } else { choices.len().saturating_sub(1) };
        if let Some(next) = choices.get((at + step) % choices.len().max(1)) {
            self.choices.insert(self.focus, next);
        }
        self.check();
    }

    /// Whether a field says something else than the job did.
    pub fn is_changed(&self, field: Field) -> bool {
        self.text(field) != field.text(&self.base)
    }

    /// The fields that say something else than the job did.
    pub fn changed(&self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(|field| self.is_changed(*field))
    }

    /// Goes to the next field, or the one before.
    pub fn step(&mut self, forward: bool) {
        self.seen.insert(self.focus);
        let stops = Field::ALL.into_iter().filter(|f| !(self.named && *f == Field::Name));
        let stops: Vec<Field> = stops.collect();
        let at = stops.iter().position(|f| *f == self.focus).unwrap_or(0);
        let step = if forward { 1 } else { stops.len() - 1 };
        if let Some(next) = stops.get((at + step) % stops.len()) {
            self.focus = *next;
        }
    }

    /// The job as it is typed, also where it is not in order.
    pub fn job(&self) -> Job {
        self.build().0
    }

    fn build(&self) -> (Job, Vec<Problem>) {
        let mut job = self.base.clone();
        let mut problems = Vec::new();
        for field in self.changed() {
            if let Err(message) = field.set(&mut job, &self.text(field)) {
                let field = Some(field);
                problems.push(Problem { field, message });
            }
        }
        (job, problems)
    }

    /// Looks at everything again, after a change.
    pub fn check(&mut self) {
        let (job, mut problems) = self.build();
        let typed = self.text(Field::Schedule);
        self.schedule = match (job.cron_expr.trim(), job.name.as_str()) {
            ("", _) => None,
            // Nothing can be chosen by a name that is not there yet.
            (_, "") => Some(Schedule::parse(&typed)),
            (_, name) => Some(Schedule::for_job(&typed, name, job.anchor)),
        };
        if let Err(found) = job.check() {
            for problem in found.0 {
                let field = Field::of_json(&problem.field);
                if field.is_some() && problems.iter().any(|p| p.field == field) {
                    continue;
                }
                let message = match field {
                    Some(_) => problem.message,
                    None => problem.to_string(),
                };
                problems.push(Problem { field, message });
            }
        }
        // In the order of the form; what it does not show comes last.
        problems.sort_by_key(|p| (p.field.is_none(), p.field));
        self.problems = problems;
    }

    /// The job, where everything is in order.
    ///
    /// # Errors
    /// Goes to the first field that is wrong.
    pub fn finish(&mut self) -> Result<Job, Problem> {
        self.seen.extend(Field::ALL);
        self.check();
        match self.problems.first() {
            None => Ok(self.job()),
            Some(problem) => {
                let problem = problem.clone();
                if let Some(field) = problem.field
                    && !(self.named && field == Field::Name)
                {
                    self.focus = field;
                }
                Err(problem)
            }
        }
    }

    /// Says that every field may be complained about.
    pub fn see_all(&mut self) {
        self.seen.extend(Field::ALL);
    }

    /// What is wrong with a field, once it may be said: not while it is still empty and new.
    pub fn problem(&self, field: Field) -> Option<&str> {
        let begun = self.seen.contains(&field) || !self.text(field).is_empty();
        let of = self.problems.iter().find(|p| p.field == Some(field))?;
        begun.then_some(of.message.as_str())
    }

    /// The first thing that is wrong and may be said: with the focused field, with another, or with
    /// what the form does not show.
    pub fn worst(&self) -> Option<(Option<Field>, &str)> {
        let fields = std::iter::once(self.focus).chain(Field::ALL);
        let shown = fields.filter_map(|f| Some((Some(f), self.problem(f)?))).next();
        shown.or_else(|| {
            let hidden = self.problems.iter().find(|p| p.field.is_none())?;
            Some((None, hidden.message.as_str()))
        })
    }

    /// The schedule as it is typed; `None` while there is nothing.
    pub fn schedule(&self) -> Option<&Result<Schedule, ScheduleError>> {
        self.schedule.as_ref()
    }

    /// The zone in which the schedule is read; `None` where it is not in order.
    pub fn zone(&self, default: Tz) -> Option<Tz> {
        let text = self.text(Field::Zone);
        match text.trim() {
            "" => Some(default),
            text => parse_zone(text).ok(),
        }
    }
}
