//! The page: one file, no scripts, nothing fetched. First what was promised, then a picture of every row, then the figures.

use std::fmt::Write;

use anyhow::Result;

use super::targets::{Verdict, verdicts};
use super::{Line, Results, human, plot};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#222}\
h1{margin-bottom:.2rem}.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(560px,1fr));gap:1.2rem}\
figure{margin:0;border:1px solid #ddd;border-radius:6px;padding:.4rem}figcaption{font-weight:600;padding:.2rem .4rem}\
table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #ddd;padding:.25rem .5rem;text-align:right}\
td:first-child,th:first-child{text-align:left}.met{background:#d9f2df}.missed{background:#fbdcd6}\
.key span{display:inline-block;margin-right:1rem}.key i{display:inline-block;width:.9em;height:.9em;margin-right:.35em;border-radius:2px}\
.wide{overflow-x:auto}small{color:#666}";

/// The page's text.
pub fn render(results: &Results) -> Result<String> {
    let mut page = String::new();
    let verdicts = verdicts(results);
    let met = verdicts.iter().filter(|verdict| verdict.met()).count();
    write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><title>Lamina compared</title><style>{STYLE}</style>"
    )?;
    write!(page, "<h1>Lamina compared</h1><p>{}, {} rounds, medians. ", escape(&results.machine), results.rounds)?;
    write!(page, "<b>{met} of {} targets met.</b>", verdicts.len())?;
    if results.quick {
        write!(page, " <b>A smoke run: the figures mean nothing.</b>")?;
    }
    write!(page, "</p>")?;
    key(&mut page, results)?;
    pictures(&mut page, results)?;
    targets(&mut page, &verdicts)?;
    figures(&mut page, results)?;
    if !results.absent.is_empty() {
        write!(page, "<h2>Not measured</h2><ul>")?;
        for absent in &results.absent {
            write!(page, "<li>{}</li>", escape(&absent.sentence()))?;
        }
        write!(page, "</ul>")?;
    }
    write!(page, "</html>")?;
    Ok(page)
}

fn key(page: &mut String, results: &Results) -> Result<()> {
    write!(page, "<p class=key>")?;
    for (name, version) in &results.contenders {
        let colour = plot::colour(name);
        let (red, green, blue) = (colour.0, colour.1, colour.2);
        write!(
            page,
            "<span title=\"{}\"><i style=\"background:rgb({red},{green},{blue})\"></i>{name}</span>",
            escape(version)
        )?;
    }
    write!(
        page,
        "</p><p><small>Time per operation; lower is better. Over layers the scale is logarithmic; thin strokes span the rounds.</small></p>"
    )?;
    Ok(())
}

fn pictures(page: &mut String, results: &Results) -> Result<()> {
    write!(page, "<div class=grid>")?;
    let lines = results.lines();
    for rows in lines.chunk_by(|one, other| one.row == other.row) {
        let rows: Vec<&Line<'_>> = rows.iter().collect();
        write!(
            page,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(rows[0].row),
            plot::row(results, &rows)?
        )?;
    }
    write!(page, "</div>")?;
    Ok(())
}

fn targets(page: &mut String, verdicts: &[Verdict]) -> Result<()> {
    write!(
        page,
        "<h2>Targets</h2><div class=wide><table><tr><th>row<th>layers<th>contender<th>against<th>at most<th>ratio</tr>"
    )?;
    for verdict in verdicts {
        let class = if verdict.met() { "met" } else { "missed" };
        let Verdict { row, layers, contender, reference, at_most, ratio } = verdict;
        write!(
            page,
            "<tr class={class}><td>{row}<td>{layers}<td>{contender}<td>{reference}<td>{at_most:.2}<td>{ratio:.2}</tr>"
        )?;
    }
    write!(page, "</table></div>")?;
    Ok(())
}

fn figures(page: &mut String, results: &Results) -> Result<()> {
    write!(
        page,
        "<h2>Figures</h2><p><small>Time per operation, its ratio to overlayfs in the same round, processor time of client and server.</small></p>"
    )?;
    write!(page, "<div class=wide><table><tr><th>row<th>layers")?;
    results.contenders.iter().try_for_each(|(name, _)| write!(page, "<th>{name}"))?;
    write!(page, "</tr>")?;
    for line in results.lines() {
        write!(page, "<tr><td>{}<td>{}", escape(line.row), line.layers)?;
        for (name, _) in &results.contenders {
            let Some(figure) = line.figures.get(name.as_str()) else {
                write!(page, "<td>-")?;
                continue;
            };
            let ratio = results.ratio_to_kernel(&line, name).unwrap_or(f64::NAN);
            let (wall, cpu) = (human(figure.wall), human(figure.cpu));
            let (low, high) = (human(figure.wall_min), human(figure.wall_max));
            write!(page, "<td title=\"{low} to {high}\">{wall}<br><b>{ratio:.2}</b> <small>cpu {cpu}</small>")?;
        }
        write!(page, "</tr>")?;
    }
    write!(page, "</table></div>")?;
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
