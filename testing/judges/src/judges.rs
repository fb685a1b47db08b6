//! How others decide. Each model is written from the published description and checked against
//! published vectors (`vectors`); no source is taken over.

pub mod argo;
pub mod bands;
pub mod brent;
pub mod confseq;
pub mod flagger;
pub mod kayenta;
pub mod mann_whitney;
pub mod schedule;
pub mod seeds;

/// The standard normal quantile: Newton's method on the complementary error function.
pub fn normal_quantile(probability: f64) -> f64 {
    let below = |z: f64| 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
    let density = |z: f64| libm::exp(-z * z / 2.0) / libm::sqrt(std::f64::consts::TAU);
    let mut z = 0.0;
    for _ in 0..60 {
        let step = (below(z) - probability) / density(z);
        z -= step.clamp(-1.0, 1.0);
        if step.abs() < 1e-15 {
            break;
        }
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_tabulated_ones() {
        for (probability, z) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.01, -2.326_347_874)]
        {
            assert!((normal_quantile(probability) - z).abs() < 1e-9, "{probability}");
        }
    }
}
