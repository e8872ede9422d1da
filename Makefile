# What is done day by day; CONTRIBUTING.md explains each.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
PYTHON ?= python

.PHONY: export test lessons readme site check-site graders bench house

export:  ## notebooks and scripts formatted, the package from the notebooks
	ruff format nbs tests tools benchmarks
	nbdev_export
	nbdev_clean

test:  ## everything, in the order in which a failure is cheapest to find
	$(PYTHON) tests/run.py

lessons:  ## execute the lessons and keep their outputs
	$(PYTHON) tools/lessons.py

readme:  ## README.md from nbs/index.ipynb
	$(PYTHON) tools/readme.py

site:  ## all pages in build/site/html (pip install -e '.[site]' first)
	$(PYTHON) tools/site/pages.py

check-site: site  ## the pages as they were built: links, addresses, search, phones
	NIWT_SITE=build/site/html $(PYTHON) -m pytest tests/test_site.py

graders:  ## a right and a wrong student graded by Otter and nbgrader, in an environment of their own (needs the network)
	$(PYTHON) tools/graders.py

bench:  ## what things cost beside peers, about five minutes each
	for name in timing importance transfer widgets explain; do $(PYTHON) -m benchmarks $$name || exit 1; done

house:  ## the measures of the tree beside their limits
	$(PYTHON) tools/house.py
