//! `docs/performance.svg`: calls a second, a group of bars for each number of connections.

use crate::{load::Ask, rig::Target, run::Row};

const WIDTH: f64 = 900.0;
const PANEL: f64 = 230.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 60.0;
const BAR_ROOM: f64 = 150.0;
/// Told apart without colours, too: light to dark.
const COLOURS: [&str; 8] = [
    "#c7c7c7", "#7fb069", "#1f6feb", "#0b3d91", "#e6aa68", "#ca3c25", "#8e5572", "#4a4a48",
];

/// The plot, or `None` of no rows.
#[must_use]
pub fn svg(targets: &[Target], rows: &[Row]) -> Option<String> {
    let mut panels: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let what = if row.0.ask == Ask::Large {
            "64 KiB answers"
        } else {
            "small answers"
        };
        let title = format!("calls a second, {what}, {}", row.0.era);
        match panels.last_mut() {
            Some((last, rows)) if *last == title => rows.push(row),
            _ => panels.push((title, vec![row])),
        }
    }
    let height = TOP + PANEL * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    legend(&mut out, targets);
    for (place, (title, rows)) in panels.iter().enumerate() {
        panel(&mut out, TOP + PANEL * place as f64, title, rows);
    }
    out.push_str("</svg>\n");
    (!panels.is_empty()).then_some(out)
}

fn legend(out: &mut String, targets: &[Target]) {
    let mut x = LEFT;
    for (target, colour) in targets.iter().zip(COLOURS.iter().cycle()) {
        let name = escaped(&target.endpoint.name);
        out.push_str(&format!(
            "<rect x=\"{x}\" y=\"20\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n<text x=\"{}\" y=\"31\">{name}</text>\n",
            x + 17.0
        ));
        x += 40.0 + 7.5 * name.len() as f64;
    }
}

fn panel(out: &mut String, top: f64, title: &str, rows: &[&Row]) {
    let all = rows.iter().flat_map(|row| row.1.iter().flatten());
    let most = nice(all.map(|figures| figures.rate).fold(1.0, f64::max));
    let base = top + 30.0 + BAR_ROOM;
    out.push_str(&format!(
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>\n",
        top + 18.0
    ));
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let y = base - BAR_ROOM * share;
        out.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#ddd\"/>\n<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">{:.0}</text>\n",
            WIDTH - 20.0,
            LEFT - 6.0,
            y + 4.0,
            most * share,
        ));
    }
    let group = (WIDTH - LEFT - 20.0) / rows.len() as f64;
    for (place, (cell, figures)) in rows.iter().enumerate() {
        let start = LEFT + group * place as f64;
        let bar = group * 0.84 / figures.len() as f64;
        for (n, (figures, colour)) in figures.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let Some(figures) = figures else { continue };
            let height = BAR_ROOM * figures.rate / most;
            out.push_str(&format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\n",
                start + group * 0.08 + bar * n as f64,
                base - height,
                bar * 0.92,
            ));
        }
        out.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} conn.</text>\n",
            start + group / 2.0,
            base + 17.0,
            cell.connections,
        ));
    }
}

/// The next of 1, 2, 4, 5, 8 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(value)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_figure_above_the_highest_bar() {
        for (value, end) in [
            (93_000.0, 100_000.0),
            (41_000.0, 50_000.0),
            (1_000.0, 1_000.0),
        ] {
            assert!((nice(value) - end).abs() < 1e-6, "{value}");
        }
    }
}
