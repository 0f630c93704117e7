// Line icons on a 24 grid, drawn for Roost.

const PATHS = {
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7.5 7.5h9v9h-9z",
  copy: "M9 9h10v11H9zM15 9V5H5v11h4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  retry: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4.5h-4.5",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.2 10.5v5.5M13.8 10.5v5.5",
  image: "M4 5h16v14H4zM4 16l4.5-4.5 4 4L15.5 12 20 16.500M9 9.200h.01",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  down: "M12 5v14M6 13l6 6 6-6",
  chevron: "M7 10l5 5 5-5",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 3v1.500M12 19.500V21M3 12h1.500M19.500 12H21M5.600 5.600l1.100 1.100M17.300 17.300l1.100 1.100M5.600 18.400l1.100-1.100M17.300 6.700l1.100-1.100",
  moon: "M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10z",
  language: "M12 3.500a8.500 8.500 0 1 1 0 17 8.500 8.500 0 0 1 0-17zM3.500 12h17M12 3.500c5 5.200 5 11.800 0 17c-5-5.200-5-11.800 0-17",
  leave: "M13 4.500H5v15h8M10 12h10M16.500 8.500L20 12l-3.500 3.500",
  eye: "M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500 12zM12 9.500a2.500 2.500 0 1 1 0 5 2.500 2.500 0 0 1 0-5z",
  code: "M9 7l-5 5 5 5M15 7l5 5-5 5",
  download: "M12 4v10.500M7.500 10l4.500 4.500L16.500 10M5 19.500h14",
  seed: "M9.500 4.500L7.500 19.500M16.500 4.500L14.500 19.500M4.500 9h15.500M4 15h15.500",
  dice: "M5 5h14v14H5zM8.300 9.000a.700.700 0 1 0 1.400 0a.700.700 0 1 0-1.400 0M11.300 12.000a.700.700 0 1 0 1.400 0a.700.700 0 1 0-1.400 0M14.300 15.000a.700.700 0 1 0 1.400 0a.700.700 0 1 0-1.400 0",
  brush: "M19.500 4.500c-5 2.500-8 5.500-9.500 8.500l2 2c3-1.500 6-4.500 8.500-9.500zM9 14c-3 0-2.500 3.500-5 4.500 2.500 1.500 7 1 7-2.500",
  gallery: "M4.500 4.500h6v6h-6zM13.500 4.500h6v6h-6zM4.500 13.500h6v6h-6zM13.500 13.500h6v6h-6z",
  back: "M14.500 5.500L8 12l6.500 6.500",
  forth: "M9.500 5.500L16 12l-6.500 6.500",
  wide: "M14 5h5v5M19 5l-6 6M10 19H5v-5M5 19l6-6",
  update: "M12 4v10.500M7.500 10l4.500 4.500L16.500 10M5 19.500h14",
  alert: "M12 4l9 15.500H3zM12 10v4.500M12 17h.01",
  offline: "M5 12.500a10 10 0 0 1 4-2.600M15 9.900a10 10 0 0 1 4 2.600M8.500 16a5 5 0 0 1 7 0M12 19h.01M4 4l16 16",
};
const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `glyph glyph-${name}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
