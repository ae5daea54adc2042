//! Drawings: one row of the comparison as an SVG. Owns scales and colours; the same contender has the same colour everywhere.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Line, Results, human};
use crate::contender;

const WIDTH: u32 = 560;
const HEIGHT: u32 = 300;

/// Height of one bar with its gap, and of the room for the axis.
const BAR_HEIGHT: u32 = 26;
const BAR_MARGIN: u32 = 60;

/// Ours are the strong ones: colours of Okabe and Ito, which colour-blind people can tell apart.
const COLOURS: [(u8, u8, u8); 10] = [
    (60, 60, 60),
    (150, 150, 150),
    (230, 159, 0),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (0, 158, 115),
    (240, 228, 66),
    (86, 180, 233),
    (120, 200, 80),
];

/// The colour of a contender.
pub fn colour(name: &str) -> RGBColor {
    let place = contender::names().position(|known| known == name).unwrap_or(0);
    let (red, green, blue) = COLOURS[place % COLOURS.len()];
    RGBColor(red, green, blue)
}

/// A row: lines over the number of layers where it was measured at several, else bars.
pub fn row(results: &Results, lines: &[&Line<'_>]) -> Result<String> {
    let mut svg = String::new();
    let drawn = match lines {
        [only] => bars(&mut svg, results, only),
        lines => over_layers(&mut svg, results, lines),
    };
    drawn.map_err(|error| anyhow!("drawing: {error}"))?;
    Ok(svg)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn canvas(svg: &mut String, height: u32) -> Result<DrawingArea<SVGBackend<'_>, Shift>, Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    Ok(area)
}

fn over_layers(svg: &mut String, results: &Results, lines: &[&Line<'_>]) -> Drawn {
    let figures = || lines.iter().flat_map(|line| line.figures.values());
    let low = figures().map(|figure| figure.wall_min).fold(f64::INFINITY, f64::min) / 1.3;
    let high = figures().map(|figure| figure.wall_max).fold(1.0, f64::max) * 1.3;
    let area = canvas(svg, HEIGHT)?;
    let last = lines.len() as f64 - 1.0;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.1..last + 0.1, (low..high).log_scale())?;
    let layers = |x: &f64| match lines.get(x.round() as usize) {
        Some(line) if (x - x.round()).abs() < 0.01 => line.layers.to_string(),
        _ => String::new(),
    };
    let mesh = &mut chart.configure_mesh();
    mesh.disable_x_mesh().x_labels(lines.len() * 2 + 1).x_label_formatter(&layers).x_desc("layers");
    mesh.y_label_formatter(&|ns| human(*ns)).light_line_style(WHITE.mix(0.0)).draw()?;
    for (name, _) in &results.contenders {
        let figures =
            || lines.iter().enumerate().filter_map(|(x, line)| Some((x as f64, line.figures.get(name.as_str())?)));
        let width = if name.starts_with("lamina") { 3 } else { 2 };
        let style = colour(name).stroke_width(width);
        chart.draw_series(LineSeries::new(figures().map(|(x, figure)| (x, figure.wall)), style))?;
        chart.draw_series(figures().map(|(x, figure)| Circle::new((x, figure.wall), 4, colour(name).filled())))?;
        let spread = |(x, figure): (f64, &super::Figure)| {
            PathElement::new(vec![(x, figure.wall_min), (x, figure.wall_max)], colour(name).stroke_width(1))
        };
        chart.draw_series(figures().map(spread))?;
    }
    area.present()?;
    Ok(())
}

fn bars(svg: &mut String, results: &Results, line: &Line<'_>) -> Drawn {
    let shown: Vec<_> = results
        .contenders
        .iter()
        .filter_map(|(name, _)| Some((name.as_str(), line.figures.get(name.as_str())?)))
        .collect();
    let count = shown.len() as f64;
    let high = shown.iter().map(|(_, figure)| figure.wall_max).fold(1.0, f64::max) * 1.25;
    let area = canvas(svg, shown.len() as u32 * BAR_HEIGHT + BAR_MARGIN)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(10)
        .build_cartesian_2d(0.0..high, 0.0..count)?;
    let mesh = &mut chart.configure_mesh();
    mesh.disable_y_mesh().disable_y_axis().x_labels(5).x_label_formatter(&|ns| human(*ns)).draw()?;
    for (place, (name, figure)) in shown.iter().enumerate() {
        // The first contender on top.
        let bottom = count - 1.0 - place as f64;
        let bar = [(0.0, bottom + 0.15), (figure.wall, bottom + 0.85)];
        chart.draw_series([Rectangle::new(bar, colour(name).filled())])?;
        let spread = vec![(figure.wall_min, bottom + 0.5), (figure.wall_max, bottom + 0.5)];
        chart.draw_series([PathElement::new(spread, BLACK.mix(0.6).stroke_width(1))])?;
        let text = format!("{name} {}", human(figure.wall));
        let at = (high * 0.01, bottom + 0.68);
        let style = ("sans-serif", 12).into_font().color(if figure.wall > high * 0.35 { &WHITE } else { &BLACK });
        let at = if figure.wall > high * 0.35 { at } else { (figure.wall_max.max(figure.wall) + high * 0.01, at.1) };
        chart.draw_series([Text::new(text, at, style)])?;
    }
    area.present()?;
    Ok(())
}
