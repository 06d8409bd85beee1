//! What is asked of the fleet, and whether it does.

/// The bars that were measured, in the order of the parts.
#[derive(Default)]
pub(crate) struct Bars(Vec<(bool, String)>);

impl Bars {
    /// A figure that must not be larger.
    pub(crate) fn at_most(&mut self, what: &str, figure: f64, bar: f64, unit: &str) {
        let text = format!("{what}: {} of at most {}{unit}", shown(figure), shown(bar));
        self.0.push((figure <= bar, text));
    }

    /// A figure that must not be smaller.
    pub(crate) fn at_least(&mut self, what: &str, figure: f64, bar: f64, unit: &str) {
        let text = format!("{what}: {} of at least {}{unit}", shown(figure), shown(bar));
        self.0.push((figure >= bar, text));
    }

    pub(crate) fn print(&self) {
        println!("\nbars");
        for (holds, text) in &self.0 {
            println!("    {}  {text}", if *holds { "holds" } else { "FAILS" });
        }
    }
}

fn shown(figure: f64) -> String {
    if figure < 100.0 && figure.fract() != 0.0 {
        format!("{figure:.2}")
    } else {
        format!("{figure:.0}")
    }
}

/// How many workers, in words.
pub(crate) fn workers(count: usize) -> String {
    format!("{count} worker{}", if count == 1 { "" } else { "s" })
}

/// Figures in order: the middle, all but a hundredth, and the largest are asked for.
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The least figure that `percent` of all do not exceed; 0 of none.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// Of milliseconds.
    pub(crate) fn millis(&self) -> String {
        let (half, most, all) = (self.percentile(50), self.percentile(99), self.max());
        format!("p50 {half:6.1}  p99 {most:6.1}  max {all:6.1} ms")
    }
}
