"""A JupyterHub on one machine, on which users choose their packages. Copy it, and adapt what is marked."""

c = get_config()

c.JupyterHub.spawner_class = "prebuilt_spawner.PrebuiltSpawner"

# Adapt: the image that every environment is built on. It has JupyterLab and JupyterHub's single-user server.
c.PrebuiltSpawner.image = "quay.io/jupyter/base-notebook:latest"

# Adapt: where containers reach the hub; this is the address of Docker's default bridge.
c.JupyterHub.hub_ip = "172.17.0.1"

# Adapt: what users can choose. Everyone who chooses the same packages shares one image.
c.PrebuiltSpawner.profile_list = [
    {
        "display_name": "Plain notebook",
        "slug": "plain",
        "description": "JupyterLab as the base image has it",
        "default": True,
    },
    {
        "display_name": "Data analysis",
        "slug": "data",
        "description": "pandas and matplotlib",
        "packages": ["pandas", "matplotlib"],
    },
    {
        "display_name": "Documents",
        "slug": "documents",
        "description": "Spreadsheets and text documents: xlsxwriter and python-docx",
        "packages": ["xlsxwriter", "python-docx>=1"],
    },
]

# Users may also type packages of their own, with any profile.
c.PrebuiltSpawner.allow_custom_packages = True

# What users may not get, not even as a dependency of something else, and why. Profiles may have it.
# c.PrebuiltSpawner.denied_packages = {"tensorflow": "it needs more memory than servers have here"}

# Packages that are published as source alone are built, in a container that reaches nothing. False refuses them.
# c.PrebuiltSpawner.allow_source_builds = False

# A stopped server's container holds nothing that is worth keeping: the home is a volume.
c.PrebuiltSpawner.remove = True
