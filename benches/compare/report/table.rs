//! The table, in Markdown: to the terminal and into documents.

use std::fmt::Write;

use super::targets::{Verdict, verdicts};
use super::{Figure, Line, Results, human};

/// The whole text.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail; the result is carried so that nothing is dropped.
    match write_all(&mut text, results) {
        Ok(()) => text,
        Err(error) => format!("{text}\n{error}"),
    }
}

fn write_all(text: &mut String, results: &Results) -> std::fmt::Result {
    let note = if results.quick { "; a smoke run, its figures mean nothing" } else { "" };
    writeln!(text, "{}; {} rounds, medians{note}.\n", results.machine, results.rounds)?;
    for (name, version) in &results.contenders {
        writeln!(text, "- {name}: {version}")?;
    }
    writeln!(text, "\nTime per operation, and in parentheses its ratio to overlayfs in the same round:\n")?;
    write_rows(text, results, |line, name, figure| {
        let ratio = results.ratio_to_kernel(line, name).map(|ratio| format!(" ({ratio:.2})")).unwrap_or_default();
        format!("{}{ratio}", human(figure.wall))
    })?;
    writeln!(text, "\nFastest..slowest round, and processor time of client and server:\n")?;
    write_rows(text, results, |_, _, figure| {
        format!("{}..{}, cpu {}", human(figure.wall_min), human(figure.wall_max), human(figure.cpu))
    })?;
    write_targets(text, &verdicts(results))?;
    if !results.absent.is_empty() {
        writeln!(text, "\nNot measured:\n")?;
        for absent in &results.absent {
            writeln!(text, "- {}", absent.sentence())?;
        }
    }
    Ok(())
}

fn write_rows(
    text: &mut String,
    results: &Results,
    cell: impl Fn(&Line<'_>, &str, &Figure) -> String,
) -> std::fmt::Result {
    write!(text, "| | layers |")?;
    results.contenders.iter().try_for_each(|(name, _)| write!(text, " {name} |"))?;
    writeln!(text, "\n|---|---|{}", "---|".repeat(results.contenders.len()))?;
    for line in results.lines() {
        write!(text, "| {} | {} |", line.row, line.layers)?;
        for (name, _) in &results.contenders {
            match line.figures.get(name.as_str()) {
                None => write!(text, " - |")?,
                Some(figure) => write!(text, " {} |", cell(&line, name, figure))?,
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

fn write_targets(text: &mut String, verdicts: &[Verdict]) -> std::fmt::Result {
    if verdicts.is_empty() {
        return Ok(());
    }
    let met = verdicts.iter().filter(|verdict| verdict.met()).count();
    writeln!(
        text,
        "\nTargets: {met} of {} met. A ratio is our time over the other's; smaller is better.\n",
        verdicts.len()
    )?;
    writeln!(text, "| row | layers | contender | against | target | ratio | |\n|---|---|---|---|---|---|---|")?;
    for verdict in verdicts {
        let Verdict { row, layers, contender, reference, at_most, ratio } = verdict;
        let word = if verdict.met() { "met" } else { "**missed**" };
        writeln!(text, "| {row} | {layers} | {contender} | {reference} | <= {at_most:.2} | {ratio:.2} | {word} |")?;
    }
    Ok(())
}
