//! The known name that was probably meant.

/// The nearest of the known names; `None` where none is near. Equally near names
/// give the first in alphabetical order.
pub(crate) fn nearest<'a>(
    wanted: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['_', '-'], "");
    let target = plain(wanted);
    // One slip in three letters, and at least one.
    let limit = (target.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter_map(|name| {
            let candidate = plain(name);
            // Saves the quadratic comparison of what cannot be near.
            if candidate.len().abs_diff(target.len()) > 4 * limit {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&target, &candidate);
            (distance <= limit).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["timeout", "max_duration", "bearer_token", "http"];
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("bearerToken", known), Some("bearer_token"));
        assert_eq!(nearest("max-duration", known), Some("max_duration"));
        assert_eq!(nearest("htpp", known), Some("http"));
        assert_eq!(nearest("weight", known), None);
        assert_eq!(nearest("", known), None);
    }
}
