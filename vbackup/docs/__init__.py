"""The documentation's own pages, and what makes a site and the generated pages of them; not a part of the wheel."""
