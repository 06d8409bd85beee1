//! Output of jobs as it comes from a terminal program: colours kept, everything else harmless.
