//! What can be said of a study in words.

use super::{
    Outcome, StudyReport,
    statistics::{Order, Verdict},
    table::{estimates, protocols, scores},
};

/// What can be said of `study` from its runs, a sentence or two each.
pub fn sentences(study: &StudyReport) -> Vec<String> {
    let label = |index: &usize| quoted(&study.values[*index].label);
    let mut sentences = Vec::new();
    for protocol in protocols(study) {
        let estimates = scores(study, &protocol);
        let Some(order) = Order::of(&estimates) else {
            continue;
        };
        let ranked = &order.ranked;
        let mean = |index: usize| estimates[index].map_or(f64::NAN, |estimate| estimate.mean);
        let lead = 100.0 * (mean(ranked[0]) - mean(ranked[1]));
        let (best, next) = (label(&ranked[0]), label(&ranked[1]));
        let verdict = match &order.verdict {
            Verdict::Clear => {
                "its interval overlaps no other, so the seeds alone do not explain its lead"
                    .to_owned()
            }
            Verdict::Overlaps(rivals) if rivals.len() + order.single.len() + 1 == ranked.len() => {
                "every other interval overlaps its own, so the order may be chance".to_owned()
            }
            Verdict::Overlaps(rivals) => format!(
                "its interval overlaps that of {}, so their order may be chance; it overlaps no other",
                list(rivals.iter().map(label))
            ),
            Verdict::Unknown => "without two intervals, that may be chance".to_owned(),
        };
        let single = match (&order.single[..], &order.verdict) {
            ([], _) | (_, Verdict::Unknown) => String::new(),
            (single, _) => format!(
                " (one seed, no interval: {})",
                list(single.iter().map(label))
            ),
        };
        let highest = match lead {
            0.0 => format!("{best} and {next} are highest, and alike"),
            _ if lead < 0.05 => format!("{best} is highest, less than 0.05 points above {next}"),
            _ => format!("{best} is highest, {lead:.1} points above {next}"),
        };
        sentences.push(format!("{protocol}: {highest}; {verdict}{single}."));
    }
    let has_loss = estimates(study, |run| run.loss).iter().any(Option::is_some);
    if has_loss && !study.loss_comparable {
        sentences.push(
            "The losses are means over different targets or different patches, so a lower one is no better."
                .to_owned(),
        );
    }
    if let Some(reference) = study.values.get(study.reference)
        && study.values.len() > 1
        && study.runs().any(|run| run.pretrain_s.is_some())
    {
        sentences.push(format!(
            "In brackets: how many times that of {}.",
            quoted(&reference.label)
        ));
    }
    for value in &study.values {
        for run in &value.runs {
            if let Outcome::Failed(reason) = &run.outcome {
                let (label, seed) = (quoted(&value.label), run.seed);
                let folder = run.folder.display();
                sentences.push(format!(
                    "{label}, seed {seed}, failed: {reason} ({folder})."
                ));
            }
        }
    }
    sentences
}

fn quoted(label: &str) -> String {
    format!("“{label}”")
}

/// `a, b and c`.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match &items[..] {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
