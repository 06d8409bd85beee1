//! Output.
use carillon_core::id::RunId;
use carillon_core::run::{Chunk, RunRecord};
/// A log.
#[derive(Debug)]
pub struct LogView;
impl LogView {
    /// New.
    pub fn new(_run: RunId, _job: &str) -> Self {
        Self
    }
    /// Push.
    pub fn push(&mut self, _chunks: Vec<Chunk>) {}
    /// Ended.
    pub fn ended(&mut self, _record: RunRecord) {}
    /// Failed.
    pub fn failed(&mut self, _why: String) {}
}
