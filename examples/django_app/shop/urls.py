"""Where the views are."""

from django.urls import path
from support import views

urlpatterns = [
    path("chat", views.start),
    path("chat/<str:run_id>", views.read),
    path("chat/<str:run_id>/events", views.events),
    path("chat/<str:run_id>/cancel", views.cancel),
]
