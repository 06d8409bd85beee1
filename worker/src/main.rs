#[allow(dead_code)]
mod execute;

fn main() {}
