//! The Carillon console: cron for a fleet, from the keyboard.
//!
//! The whole state of the console is one value, [`model::Model`]. [`update::update`] is a plain
//! function: it takes a [`msg::Msg`], changes the model and returns [`effect::Effect`]s. Every
//! effect passes [`gate`], which alone decides what read-only mode refuses. [`view`] reads the
//! model and draws. [`app`] is the loop around them.
//!
//! Floors, a module imports only from those below its own:
//!
//! 1. [`theme`], [`key`], [`text`], [`why`]
//! 2. [`effect`], [`msg`], [`command`], [`keymap`]
//! 3. [`model`]
//! 4. [`update`], [`view`]
//! 5. [`gate`], [`clipboard`], [`terminal`]
//! 6. [`app`]

pub mod app;
pub mod backend;
pub mod cli;
pub mod clipboard;
pub mod command;
pub mod effect;
pub mod gate;
pub mod key;
pub mod keymap;
pub mod model;
pub mod msg;
pub mod operator;
pub mod terminal;
pub mod text;
pub mod theme;
pub mod update;
pub mod view;
pub mod why;

#[cfg(test)]
mod testing;
