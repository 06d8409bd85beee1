//! A job that is being written. Keys are read in [`crate::update::editor`].

pub mod field;
pub mod form;
pub mod merge;

use carillon_core::id::JobName;
use carillon_core::job::{Job, JobEntry};
use carillon_core::jobs::Expected;
use chrono_tz::Tz;
use serde_json::{Map, Value};

use self::field::Field;
use self::form::{Block, Form};
use self::merge::Row;
use crate::effect::{SaveJob, SaveKind};
use crate::theme::Role;

/// How the job is written.
#[derive(Debug)]
pub enum Body {
    /// Field by field.
    Form(Box<Form>),
    /// As JSON, where the stored value is not a job.
    Raw(Box<Raw>),
}

/// A stored value that is being mended.
#[derive(Debug)]
pub struct Raw {
    /// The text.
    pub text: Block,
    initial: String,
    /// What is wrong with it, in words; `None` when nothing is.
    pub problem: Option<String>,
}

impl Raw {
    fn new(text: &str) -> Self {
        Self { text: Block::new(text), initial: text.to_owned(), problem: None }
    }

    fn read(&self, name: &JobName) -> Result<Job, String> {
        let mut job = Job::from_json(self.text.text().as_bytes()).map_err(|e| e.to_string())?;
        name.as_str().clone_into(&mut job.name);
        match job.check() {
            Ok(_) => Ok(job),
            Err(problems) => Err(problems.to_string()),
        }
    }
}

/// Somebody else wrote the job meanwhile.
#[derive(Debug)]
pub struct Conflict {
    /// What stands in etcd now; `None` where it was deleted.
    pub theirs: Option<JobEntry>,
    /// What is not the same, row by row.
    pub rows: Vec<Row>,
    /// How many rows are scrolled away.
    pub scroll: usize,
}

/// A job that is being written.
#[derive(Debug)]
pub struct Editor {
    /// How it is written.
    pub body: Body,
    /// The name and revision of the job in etcd; `None` where it is to be created.
    stored: Option<(JobName, i64)>,
    /// What the heading says.
    heading: String,
    /// The question that a conflict puts.
    pub conflict: Option<Conflict>,
    /// What happened last, until the next key.
    pub note: Option<(Role, String)>,
    /// Whether a save is under way.
    pub saving: bool,
    /// The fleet's zone, for jobs without their own.
    pub zone: Tz,
}

impl Editor {
    fn new(body: Body, stored: Option<(JobName, i64)>, heading: String) -> Self {
        Self { body, stored, heading, conflict: None, note: None, saving: false, zone: Tz::UTC }
    }

    /// A new job.
    pub fn create() -> Self {
        let form = Form::new(Job::default(), false);
        Self::new(Body::Form(Box::new(form)), None, "New job".to_owned())
    }

    /// A new job that is like another; only the name is to be found.
    pub fn copy_of(job: &Job) -> Self {
        let heading = format!("Copy of {}", job.name);
        let base = Job { name: String::new(), updated_at: None, ..job.clone() };
        let form = Form::new(base, false);
        Self::new(Body::Form(Box::new(form)), None, heading)
    }

    /// A stored job: as a form where the form can show and mend it, else as JSON.
    pub fn edit(entry: &JobEntry) -> Self {
        let heading = format!("Edit {}", entry.name);
        let stored = Some((entry.name.clone(), entry.mod_revision));
        let mut editor = Self::new(Self::body_of(entry), stored, heading);
        editor.look_at_raw();
        editor
    }

    /// With the fleet's zone, which jobs without their own follow.
    #[must_use]
    pub fn in_zone(mut self, zone: Tz) -> Self {
        self.zone = zone;
        self
    }

    fn body_of(entry: &JobEntry) -> Body {
        if let Some(job) = entry.job() {
            return Body::Form(Box::new(Form::new(job.clone(), true)));
        }
        let shown = |problem: &carillon_core::job::Problem| {
            Field::of_json(&problem.field).is_some_and(|f| f != Field::Name)
        };
        if let Err(problems) = &entry.state
            && problems.0.iter().all(shown)
            && let Ok(mut job) = Job::from_json(&entry.raw)
        {
            entry.name.as_str().clone_into(&mut job.name);
            let mut form = Form::new(job, true);
            form.see_all();
            return Body::Form(Box::new(form));
        }
        Body::Raw(Box::new(Raw::new(&String::from_utf8_lossy(&entry.raw))))
    }

    /// What is being written, for a question about it: `settle`, `a new job`.
    pub fn title(&self) -> String {
        match (&self.stored, &self.body) {
            (Some((name, _)), _) => name.to_string(),
            (None, Body::Form(form)) => match form.text(Field::Name).trim() {
                "" => "a new job".to_owned(),
                name => format!("the new job {name}"),
            },
            (None, Body::Raw(_)) => "a new job".to_owned(),
        }
    }

    /// What the heading says: `Edit settle`.
    pub fn heading(&self) -> &str {
        &self.heading
    }

    /// The etcd revision that the changes stand on.
    pub fn revision(&self) -> Option<i64> {
        self.stored.as_ref().map(|(_, revision)| *revision)
    }

    /// Whether something was typed that would be lost.
    pub fn is_dirty(&self) -> bool {
        match &self.body {
            Body::Form(form) => form.changed().next().is_some(),
            Body::Raw(raw) => raw.text.text() != raw.initial,
        }
    }

    /// Finds out anew what is wrong with raw text.
    pub fn look_at_raw(&mut self) {
        if let (Body::Raw(raw), Some((name, _))) = (&mut self.body, &self.stored) {
            raw.problem = raw.read(name).err();
        }
    }

    /// The save that is to be asked for, unless something is wrong or nothing was changed.
    pub fn save(&mut self) -> Option<SaveJob> {
        let job = match self.finish() {
            Ok(job) => job,
            Err(message) => {
                self.note = Some((Role::Error, message));
                return None;
            }
        };
        if self.stored.is_some() && !self.is_dirty() {
            self.note = Some((Role::Dim, "nothing was changed".to_owned()));
            return None;
        }
        let what = self.kind();
        self.saving = true;
        self.note = None;
        Some(SaveJob {
            job: Box::new(job),
            expected: match self.revision() {
                Some(revision) => Expected::Revision(revision),
                None => Expected::Absent,
            },
            what,
        })
    }

    fn finish(&mut self) -> Result<Job, String> {
        match (&mut self.body, &self.stored) {
            (Body::Form(form), _) => form.finish().map_err(|p| match p.field {
                Some(field) => format!("{}: {}", field.label(), p.message),
                None => p.message,
            }),
            (Body::Raw(raw), Some((name, _))) => raw.read(name),
            (Body::Raw(raw), None) => Job::from_json(raw.text.text().as_bytes())
                .and_then(|job| job.check().map(|checked| checked.job))
                .map_err(|e| e.to_string()),
        }
    }

    fn kind(&self) -> SaveKind {
        let Some(_) = self.stored else {
            return SaveKind::Create;
        };
        match &self.body {
            Body::Form(form) if form.changed().eq([Field::Enabled]) => {
                if form.job().enabled {
                    SaveKind::Resume
                } else {
                    SaveKind::Pause
                }
            }
            _ => SaveKind::Edit,
        }
    }

    /// The save failed; everything that was typed is still there.
    pub fn failed(&mut self, why: impl Into<String>) {
        self.saving = false;
        self.note = Some((Role::Error, format!("not saved: {}", why.into())));
    }

    /// The save was refused because somebody else wrote the job meanwhile.
    pub fn conflict(&mut self, theirs: Option<JobEntry>) {
        self.saving = false;
        if self.stored.is_none()
            && let (Some(entry), Body::Form(form)) = (&theirs, &mut self.body)
        {
            form.focus = Field::Name;
            let message = format!("a job named {} exists already: find another name", entry.name);
            self.note = Some((Role::Error, message));
            return;
        }
        let (base, mine) = match &self.body {
            Body::Form(form) => (fields_of(&form.base), fields_of(&form.job())),
            Body::Raw(raw) => {
                (fields_in(raw.initial.as_bytes()), fields_in(raw.text.text().as_bytes()))
            }
        };
        let written = match &theirs {
            // Their text as a job, so that a default that is spelled out is not a difference.
            Some(entry) => match (&self.body, Job::from_json(&entry.raw)) {
                (Body::Form(_), Ok(job)) => fields_of(&Job { name: entry.name.to_string(), ..job }),
                _ => fields_in(&entry.raw),
            },
            None => Map::new(),
        };
        let differences = match &theirs {
            Some(_) => merge::differences(&base, &mine, &written),
            None => merge::differences(&base, &mine, &base),
        };
        self.conflict = Some(Conflict { theirs, rows: merge::rows(&differences), scroll: 0 });
    }

    /// Answers a conflict: what was changed here is put upon what they wrote; where both changed a
    /// field, this editor's text stands. Nothing is written until the next save.
    pub fn keep_mine(&mut self) {
        let Some(conflict) = self.conflict.take() else {
            return;
        };
        let Some(theirs) = conflict.theirs else {
            self.stored = None;
            self.note = Some((Role::Warn, "the next save creates the job anew".to_owned()));
            return;
        };
        self.stored = Some((theirs.name.clone(), theirs.mod_revision));
        let under = match (&self.body, Job::from_json(&theirs.raw)) {
            (Body::Form(_), Ok(mut job)) => {
                theirs.name.as_str().clone_into(&mut job.name);
                Some(job)
            }
            _ => None,
        };
        if let (Some(job), Body::Form(form)) = (under, &mut self.body) {
            let mut merged = Form::new(job, true);
            for field in form.changed() {
                merged.set_text(field, &form.text(field));
            }
            merged.focus = form.focus;
            **form = merged;
            let words = format!(
                "your changes now stand on revision {}: look, and save again",
                theirs.mod_revision
            );
            self.note = Some((Role::Warn, words));
        } else {
            let words = "the next save replaces the whole of what they wrote";
            self.note = Some((Role::Warn, words.to_owned()));
        }
    }

    /// Answers a conflict: what was typed here is given up. False where there is nothing left to
    /// edit.
    pub fn take_theirs(&mut self) -> bool {
        let Some(Conflict { theirs: Some(theirs), .. }) = self.conflict.take() else {
            return false;
        };
        *self = Self::edit(&theirs).in_zone(self.zone);
        let words = format!("this is revision {}", theirs.mod_revision);
        self.note = Some((Role::Dim, words));
        true
    }
}

fn fields_of(job: &Job) -> Map<String, Value> {
    match serde_json::to_value(job) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The fields of stored text; where it is not JSON, the text itself.
fn fields_in(raw: &[u8]) -> Map<String, Value> {
    if let Ok(Value::Object(fields)) = serde_json::from_slice(raw) {
        return fields;
    }
    let text = String::from_utf8_lossy(raw).into_owned();
    Map::from_iter([("text".to_owned(), Value::String(text))])
}
