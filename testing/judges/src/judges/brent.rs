//! Brent's root search (Algorithms for Minimization without Derivatives, 1973, chapter 4) with the
//! tolerance that R's `uniroot` and, after it, Kayenta use. What it returns for a step function
//! depends on every choice it makes, so each is made in the order of the original.

/// Iterations at most.
const STEPS_MAX: u32 = 1001;

/// A point and the function's value there.
#[derive(Debug, Clone, Copy)]
struct Point {
    at: f64,
    value: f64,
}

/// A root of `function` between `low` and `high`, to within about `tolerance`.
pub fn root(low: f64, high: f64, tolerance: f64, function: impl Fn(f64) -> f64) -> f64 {
    let point = |at: f64| Point { at, value: function(at) };
    let (mut before, mut best) = (point(low), point(high));
    if before.value == 0.0 {
        return before.at;
    }
    let mut across = before;
    for _ in 0..STEPS_MAX {
        let last_step = best.at - before.at;
        if across.value.abs() < best.value.abs() {
            (before, best, across) = (best, across, best);
        }
        let least = 2.0 * f64::EPSILON * best.at.abs() + tolerance / 2.0;
        let half = (across.at - best.at) / 2.0;
        if half.abs() <= least || best.value == 0.0 {
            return best.at;
        }
        let mut step = half;
        if last_step.abs() >= least && before.value.abs() > best.value.abs() {
            let (p, q) = interpolated(before, best, across);
            let fits = p < 0.75 * (across.at - best.at) * q - (least * q).abs() / 2.0;
            if fits && p < (last_step * q / 2.0).abs() {
                step = p / q;
            }
        }
        if step.abs() < least {
            step = if step > 0.0 { least } else { -least };
        }
        before = best;
        best = point(best.at + step);
        let is_same_side =
            (best.value > 0.0 && across.value > 0.0) || (best.value < 0.0 && across.value < 0.0);
        if is_same_side {
            across = before;
        }
    }
    best.at
}

/// The step by the secant, or by the inverse parabola through three points, as `p / q` with `p` not
/// negative.
#[allow(clippy::float_cmp, reason = "the same point, not a close one")]
fn interpolated(before: Point, best: Point, across: Point) -> (f64, f64) {
    let width = across.at - best.at;
    let (p, q) = if before.at == across.at {
        let ratio = best.value / before.value;
        (width * ratio, 1.0 - ratio)
    } else {
        let q = before.value / across.value;
        let (first, second) = (best.value / across.value, best.value / before.value);
        let p = second * (width * q * (q - first) - (best.at - before.at) * (first - 1.0));
        (p, (q - 1.0) * (first - 1.0) * (second - 1.0))
    };
    if p > 0.0 { (p, -q) } else { (-p, q) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooth_roots_and_steps_are_found() {
        let cubic = root(0.0, 4.0, 1e-12, |x| x * x * x - 20.0);
        assert!((cubic - libm::cbrt(20.0)).abs() < 1e-9);
        let step = root(-1.0, 3.0, 1e-4, |x| if x < 0.7 { 2.0 } else { -1.0 });
        assert!((step - 0.7).abs() < 1e-4);
    }
}
