// The colours of the generated pictures, shared by browsers, Python and Node.

export const PALETTE = {
  red: [200, 30, 30],
  green: [20, 150, 30],
  blue: [30, 50, 200],
  yellow: [220, 210, 30],
  magenta: [200, 30, 200],
  cyan: [20, 190, 200],
  orange: [240, 130, 20],
  grey: [128, 128, 128],
};

/** Colour conversion and quantisation move a channel by some 15 of 255; the nearest two colours are 90 apart. */
export const COLOUR_TOLERANCE = 40;
