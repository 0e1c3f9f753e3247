"""Apache Airflow provider that releases offers on the Microsoft commercial marketplace."""

__version__ = "0.1.0"
