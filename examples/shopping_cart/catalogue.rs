//! What the shop sells.

use crate::preferences::{Cents, Text};

#[derive(Debug)]
pub(crate) struct Product {
    /// Its name in forms and in stored carts.
    pub(crate) slug: &'static str,
    pub(crate) name: Text,
    /// What it is, in a line.
    pub(crate) text: Text,
    /// What its own page adds.
    pub(crate) story: Text,
    /// In euros.
    pub(crate) price: Cents,
    /// The inside of an SVG of 64 by 64, drawn in the page's own colours.
    pub(crate) picture: &'static str,
}

pub(crate) fn find(slug: &str) -> Option<&'static Product> {
    CATALOGUE.iter().find(|product| product.slug == slug)
}

pub(crate) static CATALOGUE: [Product; 8] = [
    Product {
        slug: "umbrella",
        name: Text("Umbrella", "Regenschirm"),
        text: Text(
            "Opens with one hand and holds in a gale.",
            "Öffnet sich mit einer Hand und hält im Sturm.",
        ),
        story: Text(
            "Eight ribs of glass fibre, a handle of ash and a cover that dries on the way from the door to the peg.",
            "Acht Rippen aus Glasfaser, ein Griff aus Eschenholz und ein Bezug, der auf dem Weg von der Tür zum Haken trocknet.",
        ),
        price: Cents(24_50),
        picture: r#"<path class="wash" d="M8 34a24 24 0 0 1 48 0q-6-5-12 0-6-5-12 0-6-5-12 0-6-5-12 0z"/><path d="M32 10V5M32 34v18a5 5 0 0 0 10 0"/>"#,
    },
    Product {
        slug: "raincoat",
        name: Text("Raincoat", "Regenmantel"),
        text: Text(
            "Waxed cotton, dry for a whole day out.",
            "Gewachste Baumwolle, trocken für einen ganzen Tag.",
        ),
        story: Text(
            "Two pockets that hold a book each, a collar that stands up, and seams that were sealed by hand.",
            "Zwei Taschen für je ein Buch, ein Kragen, der steht, und von Hand versiegelte Nähte.",
        ),
        price: Cents(89_00),
        picture: r#"<path class="wash" d="M24 9h16l6 5 9 27-8 3-5-13v25H22V31l-5 13-8-3 9-27z"/><path d="M24 9l8 8 8-8M32 17v39"/><path d="M36 27h.1M36 36h.1M36 45h.1"/>"#,
    },
    Product {
        slug: "boots",
        name: Text("Rubber boots", "Gummistiefel"),
        text: Text(
            "Up to the knee, for puddles of any depth.",
            "Bis zum Knie, für Pfützen jeder Tiefe.",
        ),
        story: Text(
            "Natural rubber, lined with cotton. They come in one colour, which is that of rain.",
            "Naturkautschuk, mit Baumwolle gefüttert. Es gibt sie in einer Farbe, der des Regens.",
        ),
        price: Cents(54_50),
        picture: r#"<path class="wash" d="M20 8h17v28l13 6q5 2 5 9H20z"/><path d="M18 51h38v5H18zM20 15h17"/>"#,
    },
    Product {
        slug: "hat",
        name: Text("Felt hat", "Filzhut"),
        text: Text(
            "Keeps its shape on the peg and on you.",
            "Behält seine Form, am Haken und auf dem Kopf.",
        ),
        story: Text(
            "Blocked from one piece of wool felt, with a band that takes a feather or a ticket.",
            "Aus einem Stück Wollfilz gezogen, mit einem Band für eine Feder oder eine Marke.",
        ),
        price: Cents(32_00),
        picture: r#"<path class="wash" d="M18 42c0-16 2-28 8-28q6 4 12 0c6 0 8 12 8 28z"/><path class="wash" d="M6 42q26-6 52 0-6 8-26 8T6 42z"/><path d="M18 36q14 4 28 0"/>"#,
    },
    Product {
        slug: "scarf",
        name: Text("Scarf", "Schal"),
        text: Text("Two metres of merino wool.", "Zwei Meter Merinowolle."),
        story: Text(
            "Woven, not knitted, so that it keeps its length. Goes round twice.",
            "Gewebt, nicht gestrickt, damit er seine Länge behält. Reicht zweimal herum.",
        ),
        price: Cents(18_90),
        picture: r#"<path class="wash" d="M36 22l12 22-11 6-11-22z"/><path class="wash" d="M20 24h14v28H20z"/><path class="wash" d="M16 10h32q4 8 0 16H16q-4-8 0-16z"/><path d="M22 52v5M27 52v5M32 52v5M39 49l2 4M43 47l2 4M47 44l2 4M20 44h14"/>"#,
    },
    Product {
        slug: "mittens",
        name: Text("Mittens", "Fäustlinge"),
        text: Text(
            "Lined, and on a string so that both stay.",
            "Gefüttert, und an einer Schnur, damit beide bleiben.",
        ),
        story: Text(
            "The string goes through the sleeves. It is never too late to begin with that.",
            "Die Schnur läuft durch die Ärmel. Dafür ist es nie zu spät.",
        ),
        price: Cents(21_90),
        picture: r#"<path class="wash" d="M19 44V23a12 12 0 0 1 24 0v7l4-4c5-4 9 2 6 6L43 44z"/><path d="M18 44h26v10H18zM24 44v10M31 44v10M38 44v10"/>"#,
    },
    Product {
        slug: "bag",
        name: Text("Canvas bag", "Stofftasche"),
        text: Text("Carries all of the above.", "Trägt all das hier."),
        story: Text(
            "Canvas of 400 grams, handles that are long enough for the shoulder.",
            "Segeltuch von 400 Gramm, Henkel, die bis auf die Schulter reichen.",
        ),
        price: Cents(29_00),
        picture: r#"<path class="wash" d="M14 24h36l4 32H10z"/><path d="M23 31V19a9 9 0 0 1 18 0v12"/>"#,
    },
    Product {
        slug: "flask",
        name: Text("Flask", "Thermoskanne"),
        text: Text(
            "Tea at noon as hot as at breakfast.",
            "Tee, mittags so heiß wie beim Frühstück.",
        ),
        story: Text(
            "Three quarters of a litre, steel inside and outside, and a lid that is a cup.",
            "Ein dreiviertel Liter, Stahl innen und außen, und ein Deckel, der eine Tasse ist.",
        ),
        price: Cents(19_95),
        picture: r#"<path class="wash" d="M22 20h20v32a5 5 0 0 1-5 5H27a5 5 0 0 1-5-5z"/><path d="M25 7h14v13H25zM22 29h20M22 48h20"/>"#,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_is_found_by_its_own_slug() {
        for product in &CATALOGUE {
            assert_eq!(
                find(product.slug).map(|found| found.name),
                Some(product.name)
            );
        }
        assert!(find("Umbrella").is_none());
    }
}
