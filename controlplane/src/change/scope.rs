//! Writes of authors who are limited to projects: they change nothing outside of
//! these, and learn nothing of what is there.

use std::collections::BTreeSet;

use fleet_proto::validate::{Problem, Valid, validate};

use super::{
    ChangeError, Edit,
    plan::{Plan, plan},
};

/// What another project has may be said only in so far as it must be.
const CLASH: &str = "clashes with a resource of another project: paths of gateways are unique over \
                     all projects: choose another one";

/// What an edit would do. With projects: refused where it would change something
/// outside of them.
pub(super) fn within(base: &Valid, edit: Edit, projects: &[String]) -> Result<Plan, ChangeError> {
    if projects.is_empty() {
        return plan(base, edit);
    }
    let own = |project: &str| projects.iter().any(|own| own == project);
    match plan(base, edit.clone()) {
        Ok(plan) => {
            if plan.rows.iter().all(|row| own(&row.key.project)) {
                Ok(plan)
            } else {
                Err(ChangeError::Beyond(projects.to_vec()))
            }
        }
        Err(ChangeError::Invalid(problems)) => {
            let mine = alone(base, edit, own);
            Err(ChangeError::Invalid(hidden(problems, &mine, own)))
        }
        Err(error) => Err(error),
    }
}

/// The problems there would be if no other project existed.
fn alone(base: &Valid, edit: Edit, own: impl Fn(&str) -> bool) -> BTreeSet<Problem> {
    let visible = base.iter().filter(|(key, _)| own(&key.project));
    let visible = validate(visible.map(|(_, entry)| entry.resource().clone()));
    match visible.map(|visible| plan(&visible, edit)) {
        Ok(Err(ChangeError::Invalid(problems))) | Err(problems) => problems.into_iter().collect(),
        _ => BTreeSet::new(),
    }
}

/// Problems without what they tell about other projects.
fn hidden(
    problems: Vec<Problem>,
    mine: &BTreeSet<Problem>,
    own: impl Fn(&str) -> bool,
) -> Vec<Problem> {
    let hide = |problem: Problem| {
        if mine.contains(&problem) {
            return problem;
        }
        let key = problem.key.filter(|key| own(&key.project));
        let path = key.as_ref().map(|_| problem.path).unwrap_or_default();
        Problem {
            key,
            path,
            message: CLASH.to_owned(),
        }
    };
    problems.into_iter().map(hide).collect()
}
