//! The form.
use carillon_core::job::{Job, JobEntry};
/// A form.
#[derive(Debug)]
pub struct Editor {
    name: String,
    dirty: bool,
}
impl Editor {
    /// New.
    pub fn create() -> Self {
        Self {
            name: String::new(),
            dirty: false,
        }
    }
    /// Edit.
    pub fn edit(entry: &JobEntry) -> Self {
        Self {
            name: entry.name.to_string(),
            dirty: false,
        }
    }
    /// Copy.
    pub fn copy_of(job: &Job) -> Self {
        Self {
            name: job.name.clone(),
            dirty: true,
        }
    }
    /// Title.
    pub fn title(&self) -> String {
        self.name.clone()
    }
    /// Dirty.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }
    /// Conflict.
    pub fn conflict(&mut self, _theirs: Option<JobEntry>) {}
    /// Failed.
    pub fn failed(&mut self, _why: String) {}
}
