//! Drawing: reads the model, changes nothing.
pub mod editor;
pub mod log;
