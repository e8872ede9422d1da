"Charts and pictures, drawn by one painter."
